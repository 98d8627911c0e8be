"""Follows a run's metrics file while workers append to it."""

from pathlib import Path

from launch.metrics_rows import MetricsRow, parse_row


class RunWatch:
    """Reads the rows that were appended since the last look; a line being written waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self.last_step = 0

    def new(self) -> list[MetricsRow]:
        """Return the new rows, oldest first."""
        if not self._path.exists():
            return []
        # A resumed worker drops the rows of steps that it takes again: the file may shrink.
        self._offset = min(self._offset, self._path.stat().st_size)
        rows: list[MetricsRow] = []
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                rows.append(parse_row(line, str(self._path)))
        if rows:
            self.last_step = rows[-1].step
        return rows
