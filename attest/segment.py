"""A segment and its rows: how one is made of the other, and what no key can honestly have signed.

An attempt's key signs one row for each step and no step in two segments. So two records of one
attempt either fit together or show that the key told two stories.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from attest.envelope import Envelope, row_hash
from attest.errors import RefusedError
from attest.merkle import leaf_hash, tree_root
from attest.statements import Attempt, Segment, Step, cut_row, decode_statement

__all__ = [
    "CHECK",
    "FACT",
    "Contradiction",
    "RowMark",
    "check_rows",
    "contradiction",
    "mark_of",
    "segment_file",
    "segment_of",
    "segmented",
]

# The name of a refusal for rows that are missing, or not those of a logged segment.
CHECK = "segment rows"
# The fact in an attempt's environment that says what its log holds: `off`, or `every K`.
FACT = "segments"


@dataclass(frozen=True, slots=True)
class RowMark:
    """What a segment says of a row: its step, the hash before it, its own hash, its state root.

    Hashes and roots are 64 hex digits; `state_root` is None where the policy skips the state.
    """

    step: int
    prev: str
    hash: str
    state_root: str | None


def segmented(attempt: Attempt) -> bool:
    """Tell whether an attempt's log holds segments instead of steps."""
    return attempt.environment.get(FACT, "off") != "off"


def segment_file(steps: Path, number: int) -> Path:
    """Return where the first worker of an attempt keeps the segments that it has signed."""
    return steps / f"{number}-segments.jsonl"


def mark_of(envelope: Envelope) -> RowMark:
    """Return the mark of a signed row.

    Raises:
        RefusedError: (check `segment rows`) if the envelope holds another kind of statement.
    """
    statement = decode_statement(envelope.payload)
    if not isinstance(statement, Step):
        raise RefusedError(f"a {statement.KIND} stands where a row belongs", check=CHECK)
    row = statement.row
    return RowMark(row.step, row.prev, row_hash(cut_row(envelope.payload)).hex(), row.state_root)


def segment_of(run: str, attempt: str, rows: Sequence[RowMark]) -> Segment:
    """Return the segment over consecutive rows of one attempt, the last of which has a state root.

    `seen` is null: whoever signs rows does not read the log, and all hosts must name one record.

    Raises:
        ValueError: if the last row has no state root.
    """
    first, last = rows[0], rows[-1]
    if last.state_root is None:
        raise ValueError(f"step {last.step} has no state root, so no segment can end there")
    return Segment(
        state_root=last.state_root,
        run=run,
        attempt=attempt,
        first=first.step,
        last=last.step,
        prev=first.prev,
        last_row=last.hash,
        rows_root=_root(rows),
        seen=None,
    )


def check_rows(segment: Segment, rows: Sequence[RowMark]) -> None:
    """Check that these are the rows that a segment commits.

    Raises:
        RefusedError: (check `segment rows`) naming what differs.
    """
    where = f"segment of steps {segment.first} to {segment.last}"
    steps = [row.step for row in rows]
    if steps != list(range(segment.first, segment.last + 1)):
        raise RefusedError(f"{where}: its rows are not those steps, one by one", check=CHECK)
    for one, two in pairwise(rows):
        if two.prev != one.hash:
            fault = f"row {two.step} does not follow row {one.step}"
            raise RefusedError(f"{where}: {fault}", check=CHECK)
    if fault := _mismatch(segment, rows):
        raise RefusedError(f"{where}: {fault}", check=CHECK)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Say in words which records of one attempt cannot all be true: segments, and rows by step."""

    words: str
    segments: tuple[Segment, ...]
    steps: tuple[int, ...] = ()


def contradiction(rows: Mapping[int, RowMark], segments: Sequence[Segment]) -> Contradiction | None:
    """Find records that one key cannot honestly have signed for one attempt; None if it can.

    `rows` are by step. Two segments that share a step contradict each other whatever their rows:
    a step is committed once.
    """
    ordered = sorted(segments, key=lambda segment: (segment.first, segment.last))
    for one, two in pairwise(ordered):
        if two.first <= one.last:
            return Contradiction(f"two segments commit step {two.first}", (one, two))
        if two.first == one.last + 1 and two.prev != one.last_row:
            words = f"the segments on both sides of step {two.first} do not share a row"
            return Contradiction(words, (one, two))
    faults = (_against(segment, rows) for segment in segments)
    return next((fault for fault in faults if fault is not None), None)


def _against(segment: Segment, rows: Mapping[int, RowMark]) -> Contradiction | None:
    """Find rows that contradict a segment: at its ends, or inside where all of them are there."""
    first, last = segment.first, segment.last
    name = f"the segment of steps {first} to {last}"
    for step, committed in {first - 1: segment.prev, last: segment.last_row}.items():
        if step in rows and rows[step].hash != committed:
            return Contradiction(f"row {step} is another than {name} says", (segment,), (step,))
        if step + 1 in rows and rows[step + 1].prev != committed:
            words = f"row {step + 1} follows another than {name} says"
            return Contradiction(words, (segment,), (step + 1,))
    # A signer may write any number as the last step: this ends with the first row that is missing.
    steps = range(first, last + 1)
    if any(step not in rows for step in steps):
        return None
    fault = _mismatch(segment, [rows[step] for step in steps])
    return Contradiction(f"{name}: {fault}", (segment,), tuple(steps)) if fault else None


def _mismatch(segment: Segment, rows: Sequence[RowMark]) -> str:
    if rows[0].prev != segment.prev:
        return "its first row does not follow the row that it names"
    if _root(rows) != segment.rows_root:
        return "its rows have another root"
    if rows[-1].hash != segment.last_row:
        return "its last row is another"
    if rows[-1].state_root != segment.state_root:
        return "its last row names another state"
    return ""


def _root(rows: Iterable[RowMark]) -> str:
    return tree_root([leaf_hash(bytes.fromhex(row.hash)) for row in rows]).hex()
