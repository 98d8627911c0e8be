"""Appends one JSON object a step to metrics.jsonl."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anh_jax.errors import AnhError
from anh_jax.training.loop import CompletedStep
from anh_jax.training.observers.attestation import host_number


class MetricsFile:
    """Writes `step, loss, seconds, digest_seconds` and what `extra` adds.

    `loss` is the mean over the step's examples. Rows after `first_step` left by an earlier attempt
    are dropped first: those steps are taken again. Written by rank 0 alone.
    """

    def __init__(
        self, path: Path, *, first_step: int, extra: Callable[[CompletedStep], dict[str, Any]]
    ):
        self._extra = extra
        self._path = path
        if path.exists():
            _drop_from(path, first_step)
        self._stream = path.open("a", encoding="utf-8", buffering=1)

    def after_step(self, completed: CompletedStep) -> None:
        """Append this step's numbers."""
        weight = host_number(completed.scalars["weight"])
        row = {
            "step": completed.step,
            "loss": host_number(completed.outputs["loss"]) / weight,
            "seconds": completed.seconds,
            **self._extra(completed),
        }
        try:
            self._stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise AnhError(
                f"{self._path}: cannot be written ({error.strerror}); free space and resume"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _drop_from(path: Path, first_step: int) -> None:
    kept: list[str] = []
    with path.open("r", encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n") and json.loads(line)["step"] < first_step:
                kept.append(line)
    path.write_text("".join(kept), encoding="utf-8")
