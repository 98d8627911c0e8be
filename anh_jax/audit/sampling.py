"""Which steps an audit re-executes: drawn by rule, or chosen by hand.

A drawn sample rests on nonces that were committed before the final record. Drawn without any it is
`self`: the trainer could foresee it, so it shows care and proves nothing (docs/protocol.md, "Audit
sample"). Always added to a drawn sample: the last step, and for each attempt that left the line one
step that it shares with the line.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from anh_jax.errors import ConfigError
from anh_jax.line import Line, SignedRow
from attest.sample import sample_steps
from attest.statements import Source


@dataclass(frozen=True)
class Sample:
    """The steps to re-execute, ascending, and how they came to be these.

    `k` is the number drawn or chosen; `sources` are the nonces they rest on, sorted by keyid.
    """

    kind: Literal["self", "intents", "chosen"]
    k: int
    sources: tuple[Source, ...]
    steps: tuple[int, ...]


def draw_sample(
    line: Line, *, final_record: str, total: int, k: int, sources: Iterable[Source]
) -> Sample:
    """Draw at most `k` of `total` steps for a final record (hex), and add what is always added."""
    ordered = tuple(sorted(sources, key=lambda source: source.keyid))
    nonces = {source.keyid: bytes.fromhex(source.nonce) for source in ordered}
    k = min(k, total)
    drawn = sample_steps(line.run, bytes.fromhex(final_record), nonces, total, k)
    steps = {*drawn, total, *line.overlapped().values()}
    return Sample(
        kind="intents" if ordered else "self",
        k=k,
        sources=ordered,
        steps=tuple(sorted(steps)),
    )


def chosen_sample(steps: Sequence[int], *, total: int) -> Sample:
    """Take steps that somebody chose; raises ConfigError where the contract has no such step."""
    wanted = sorted(set(steps))
    if not wanted or not 1 <= wanted[0] <= wanted[-1] <= total:
        raise ConfigError(f"steps: choose some of 1 to {total}")
    return Sample(kind="chosen", k=len(wanted), sources=(), steps=tuple(wanted))


def overlaps(line: Line) -> Mapping[int, tuple[SignedRow, ...]]:
    """Return the rows off the line to judge beside it, by step: one for each attempt that has one.

    The first step that a branch shares with the line starts from the same state, so both rows must
    hold. A branch that left another branch before shares no state with the line and is passed over.
    """
    found: dict[int, list[SignedRow]] = {}
    first = line.overlapped()
    for signed in line.stale:
        step = signed.row.step
        if first.get(signed.attempt) != step:
            continue
        if signed.row.prev == line.rows[step - 1].row.prev:
            found.setdefault(step, []).append(signed)
    return {step: tuple(rows) for step, rows in found.items()}
