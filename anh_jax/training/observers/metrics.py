"""Appends one JSON object a step to metrics.jsonl."""

import json
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from anh_jax.errors import AnhError
from anh_jax.training.loop import CompletedStep
from anh_jax.training.observers.attestation import host_number


@dataclass(frozen=True, slots=True)
class _WaitingRow:
    """A step that is not signed yet; its gradient and state must not be kept."""

    step: int
    loss: jax.Array
    weight: jax.Array
    seconds: float
    extra: Mapping[str, Any]


class MetricsFile:
    """Writes `step, loss, seconds, digest_seconds` and what `extra` adds.

    `loss` is the mean over the step's examples. `digest_seconds` says what attesting a step cost,
    or None as long as it is not signed: its row waits, so the file is never ahead of what is
    signed. Rows after `first_step` left by an earlier attempt are dropped first: those steps are
    taken again. Written by rank 0 alone.
    """

    def __init__(
        self,
        path: Path,
        *,
        first_step: int,
        digest_seconds: Callable[[int], float | None] = lambda step: 0.0,
        extra: Callable[[], Mapping[str, Any]] = dict,
    ):
        self._digest_seconds = digest_seconds
        self._extra = extra
        self._waiting: deque[_WaitingRow] = deque()
        self._path = path
        if path.exists():
            _drop_from(path, first_step)
        self._stream = path.open("a", encoding="utf-8", buffering=1)

    def after_step(self, completed: CompletedStep) -> None:
        """Append the numbers of this step, or of the one before where this one is not signed."""
        row = _WaitingRow(
            completed.step,
            completed.outputs["loss"],
            completed.scalars["weight"],
            completed.seconds,
            self._extra(),
        )
        self._waiting.append(row)
        self._write_signed()

    def close(self) -> None:
        """Append what was signed last and close the file."""
        self._write_signed()
        self._stream.close()

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        if kind is None:
            self.close()
            return
        with suppress(OSError):  # a full disk may be what the run ended with
            self._stream.close()

    def _write_signed(self) -> None:
        while self._waiting:
            row = self._waiting[0]
            digest_seconds = self._digest_seconds(row.step)
            if digest_seconds is None:
                return
            self._waiting.popleft()
            self._write(
                {
                    "step": row.step,
                    "loss": host_number(row.loss) / host_number(row.weight),
                    "seconds": row.seconds,
                    "digest_seconds": digest_seconds,
                    **row.extra,
                }
            )

    def _write(self, row: Mapping[str, Any]) -> None:
        try:
            self._stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise AnhError(
                f"{self._path}: cannot be written ({error.strerror}); free space and resume"
            ) from error


def _drop_from(path: Path, first_step: int) -> None:
    kept: list[str] = []
    with path.open("r", encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n") and json.loads(line)["step"] < first_step:
                kept.append(line)
    path.write_text("".join(kept), encoding="utf-8")
