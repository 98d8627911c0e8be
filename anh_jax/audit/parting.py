"""Finds the step at which two runs of one contract part, by halving, and judges it for both.

No step is executed until that one: the signed rows say where it is.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from anh_jax.audit.bisect import FirstStep, RunSearch
from anh_jax.audit.replay import Reached, kept_copy
from anh_jax.errors import AnhError
from attest.statements import Row

# A row's own hash names its run; two runs are compared as if they were this one.
_NO_RUN = "0" * 64


@dataclass(frozen=True)
class Parted:
    """The step at which two runs of one contract part, judged for both from their common state."""

    step: int
    compared: int
    runs: tuple[FirstStep, ...]


def first_apart(first: Sequence[Row], second: Sequence[Row]) -> int | None:
    """Return the first step at which two lines of rows part, by halving; None where none does.

    Compared are hashes over all rows up to a step, for two lines may part and come back. States
    are left out where one line did not hash them.
    """
    steps = min(len(first), len(second))
    hashed = [first[i].state_root is not None and second[i].state_root is not None
              for i in range(steps)]  # fmt: skip
    lines = (_line(first[:steps], hashed), _line(second[:steps], hashed))
    low, high = 0, steps + 1
    while high - low > 1:
        middle = (low + high) // 2
        if _same(lines, middle):
            low = middle
        else:
            high = middle
    return None if high > steps else high


def part(first: RunSearch, second: RunSearch) -> Parted | None:
    """Find the step at which two runs of one contract part, and judge it for both.

    Raises AnhError where the runs differ in their contract or their first state, or where neither
    run's state before that step can be produced.
    """
    sides = (first, second)
    ids = [side.transcript.genesis.contract for side in sides]
    if ids[0] != ids[1]:
        raise AnhError(f"the runs have different contracts, {ids[0][:16]} and {ids[1][:16]}")
    roots = [side.transcript.genesis.state_root for side in sides]
    if roots[0] != roots[1]:
        raise AnhError("the runs start from different states: seed, init program or backend")
    rows = [[signed.row for signed in side.rows] for side in sides]
    step = first_apart(rows[0], rows[1])
    if step is None:
        return None
    before = _common(sides, step - 1)
    judged = tuple(side.judge(Reached(before.step, kept_copy(before.state))) for side in sides)
    return Parted(step, min(map(len, rows)), judged)


def _common(sides: Sequence[RunSearch], step: int) -> Reached:
    words = ""
    for side in sides:
        found = side.committed(step)
        if isinstance(found, Reached):
            return found
        words = found.words
    raise AnhError(f"the common state {step} cannot be produced from either run: {words}")


def _same(lines: Sequence[Sequence[str]], step: int) -> bool:
    return lines[0][step - 1] == lines[1][step - 1]


def _line(rows: Sequence[Row], hashed: Sequence[bool]) -> list[str]:
    """Return for each row its hash on the line, but for whose run it is and its declared bound."""
    found = [_NO_RUN]
    for row, with_state in zip(rows, hashed, strict=True):
        root = row.state_root if with_state else None
        said = dataclasses.replace(row, run=_NO_RUN, prev=found[-1], bound=None, state_root=root)
        found.append(said.hash().hex())
    return found[1:]
