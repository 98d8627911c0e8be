"""What an update needs of the step's number: computed on the host in float64, rounded once.

A device would round `1 - beta**t` its own way (measured: differently on every backend already at
step 1). A table of float32 numbers, committed by digest, leaves nothing to round.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
from jaxtyping import Float, Float32

from anh_jax.errors import ProgramError
from anh_jax.experiment_optimizers import Schedule
from attest import canonical
from attest.errors import AttestError

Column: TypeAlias = Callable[[Float[np.ndarray, " steps"]], Float[np.ndarray, " steps"]]

_MAX_HEADER_BYTES = 4096


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    names: tuple[str, ...]
    steps: int
    version: int = 1


@dataclass(frozen=True)
class ConstantsTable:
    """Hold the constants of each step: row t - 1 takes state t - 1 to state t.

    Attributes:
        names: what each column is.
        values: float32[steps, len(names)].
    """

    names: tuple[str, ...]
    values: Float32[np.ndarray, "steps constants"]

    def to_bytes(self) -> bytes:
        """Encode the table: a line of canonical JSON, then little-endian float32 rows."""
        header = _Header(self.names, self.values.shape[0])
        numbers = np.ascontiguousarray(self.values, dtype="<f4").tobytes()
        return canonical.encode(msgspec.to_builtins(header)) + b"\n" + numbers

    @classmethod
    def from_bytes(cls, data: bytes) -> ConstantsTable:
        """Decode a table.

        Raises:
            ProgramError: the bytes are not a table.
        """
        first, newline, numbers = data.partition(b"\n")
        try:
            value = canonical.decode(first, max_bytes=_MAX_HEADER_BYTES)
            header = msgspec.convert(value, _Header)
        except (AttestError, msgspec.ValidationError) as error:
            raise ProgramError(f"constants table: {error}") from error
        width = len(header.names)
        if not newline or header.version != 1 or len(numbers) != 4 * width * header.steps:
            raise ProgramError(
                f"constants table: {len(numbers)} bytes are not {header.steps} steps of"
                f" {width} float32 numbers"
            )
        values = np.frombuffer(numbers, dtype="<f4").reshape(header.steps, width)
        return cls(header.names, values)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the table's bytes, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def constants_table(columns: Mapping[str, Column], steps: int) -> ConstantsTable:
    """Compute every column for steps 1 to `steps` in float64 and round once to float32."""
    numbers = np.arange(1, steps + 1, dtype=np.float64)
    values = [np.broadcast_to(column(numbers), numbers.shape) for column in columns.values()]
    table = np.stack(values, axis=1).astype(np.float32)
    return ConstantsTable(tuple(columns), table)


def learning_rate(peak: float, schedule: Schedule, steps: int) -> Column:
    """Return the learning rate of each step.

    Warm-up of W steps gives step t the share t / W, so that no step is wasted on a rate of zero;
    the decay runs from the largest rate at step W + 1 and would reach `final_fraction` at step
    `steps` + 1, as optax counts.
    """
    warmup, final = schedule.warmup_steps, schedule.final_fraction
    length = max(steps - warmup, 1)

    def column(step: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
        progress = np.clip((step - 1 - warmup) / length, 0.0, 1.0)
        if schedule.kind == "cosine":
            decay = final + (1.0 - final) * 0.5 * (1.0 + np.cos(math.pi * progress))
        elif schedule.kind == "linear":
            decay = 1.0 + (final - 1.0) * progress
        else:
            decay = np.ones_like(progress)
        rising = step / warmup if warmup else np.ones_like(step)
        return peak * np.where(step <= warmup, rising, decay)

    return column


def moment_correction(decay: float) -> Column:
    """Return Adam's divisor 1 - decay^t of a moment that started at zero (arXiv:1412.6980, 3)."""
    # expm1 keeps the digits that 1 - decay**t loses for a decay near one.
    return lambda step: -np.expm1(step * math.log(decay)) if decay else np.ones_like(step)
