"""metrics.jsonl is read row by row; damage is named."""

from pathlib import Path

import pytest

from launch.errors import CommandError
from launch.metrics_rows import MetricsRow, read_metrics_rows


def rows(path: Path, text: str) -> tuple[MetricsRow, ...]:
    path.write_bytes(text.encode())
    return read_metrics_rows(path)


def test_newest_row_of_a_step_counts_and_rows_are_sorted(tmp_path: Path) -> None:
    text = '{"step":2,"loss":1}\n{"step":1,"loss":3}\n{"step":2,"loss":0.5}\n'
    assert [(row.step, row.loss) for row in rows(tmp_path / "m", text)] == [(1, 3.0), (2, 0.5)]


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    assert len(rows(tmp_path / "m", '{"step":1}\n{"step":2,"lo')) == 1


def test_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics_rows(tmp_path / "none") == ()


def test_extra_numbers_are_kept_and_other_values_dropped(tmp_path: Path) -> None:
    (row,) = rows(tmp_path / "m", '{"step":1,"seconds":null,"lr":0.1,"note":"x","on":true}\n')
    assert row == MetricsRow(step=1, extra={"lr": 0.1})


@pytest.mark.parametrize(
    "line", ["not json", "[1]", '{"loss":1}', '{"step":1.5}', '{"step":true}', "[" * 100_000]
)
def test_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="line 2"):
        rows(tmp_path / "m", f'{{"step":1}}\n{line}\n')
