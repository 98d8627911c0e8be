"""Segments: whether an attempt logs them instead of steps, and where each of them ends.

Every host signs every row either way; what differs is what the log takes. A segment is one record
with one signature for many rows, whatever the number of hosts.
"""

from dataclasses import dataclass

from anh_jax.errors import AnhError
from anh_jax.run_directory import RunDirectory
from anh_jax.training.seams import AttemptGrant
from attest.envelope import MAX_ENVELOPE_BYTES, Envelope, Signature, record_hash, sign
from attest.keys import PrivateKey
from attest.segment import FACT, RowMark, segment_of
from attest.statements import Row, Scalars, Step, encode_statement
from attest.step_file import StepFile, recover

OFF = "off"
AUTO = "auto"
# What `auto` goes by: a step record above this size, or steps faster than this, are too much for a
# log; then about one segment a second is cut, of at most so many rows.
LARGEST_STEP_RECORD = 2048
FASTEST_STEP_SECONDS = 0.02
SEGMENT_SECONDS = 1.0
LONGEST = 256
_PREFIX = "every "
_NUMBER = "-0x1.fffffffffffffp+100"


@dataclass(frozen=True, slots=True)
class SegmentDecision:
    """How many rows a segment has at least, 0 where steps are logged, and why, in words."""

    every: int
    why: str

    @property
    def facts(self) -> dict[str, str]:
        """Return what the attempt's environment says of it: nothing where steps are logged."""
        return {FACT: f"{_PREFIX}{self.every}"} if self.every else {}


def decide_segments(setting: str, *, workers: int, step_seconds: float) -> SegmentDecision:
    """Choose what an attempt's log takes, from `attest.segments`.

    `step_seconds` is what the next gradient took; it is looked at for `auto` alone. Raises AnhError
    where steps were asked for and a log takes none of so many signatures.
    """
    size = step_record_bytes(workers)
    signed = f"a step record of {workers} workers takes {size:,} bytes"
    if setting == OFF and size > MAX_ENVELOPE_BYTES:
        raise AnhError(
            f"attest.segments: off: {signed}, a log takes {MAX_ENVELOPE_BYTES:,}; use auto"
        )
    if setting.startswith(_PREFIX):
        return SegmentDecision(int(setting.removeprefix(_PREFIX)), "")
    fast = 0 < step_seconds < FASTEST_STEP_SECONDS
    if setting == OFF or (size <= LARGEST_STEP_RECORD and not fast):
        return SegmentDecision(0, f"{signed}" if setting == AUTO else "")
    every = max(1, int(SEGMENT_SECONDS / max(step_seconds, SEGMENT_SECONDS / LONGEST)))
    why = signed if size > LARGEST_STEP_RECORD else f"a gradient takes {1e3 * step_seconds:.3g} ms"
    return SegmentDecision(every, why)


def step_record_bytes(workers: int) -> int:
    """Return how large the log record of one step is under so many signatures, bytes, at most."""
    name = bytes(32).hex()
    scalars = Scalars(global_norm=_NUMBER, finite=1, weight=_NUMBER)
    row = Row(
        run=name, step=10**9, prev="1" * 64, gradient_root=name, state_root=name, batch_root=name,
        scalars=scalars, loss=_NUMBER, bound=_NUMBER[1:],
    )  # fmt: skip
    payload = encode_statement(Step(name, row))
    one, two = (len(_envelope_bytes(payload, count)) for count in (1, 2))
    return one + (workers - 1) * (two - one)


def _envelope_bytes(payload: bytes, signatures: int) -> bytes:
    told = tuple(Signature(f"{number:064x}", bytes(64)) for number in range(signatures))
    return Envelope(payload, told).to_bytes()


class SegmentCutter:
    """Cuts one attempt's rows into segments; every host does, and the first worker signs them.

    `run` and `attempt` are record hashes in hex. A segment ends with the first row that has a state
    root once it has `every` rows, with the row of `last_step`, and wherever `cut` is called. The
    file is the first worker's; other hosts have None and only name the record.
    """

    def __init__(
        self, *, run: str, attempt: str, every: int, last_step: int, file: StepFile | None
    ) -> None:
        self._run = run
        self._attempt = attempt
        self._every = every
        self._last_step = last_step
        self._file = file
        self._open: list[RowMark] = []
        self._newest = ""

    def add(self, row: RowMark) -> bool:
        """Take account of the next signed row; tell whether a segment ends with it."""
        self._open.append(row)
        full = len(self._open) >= self._every and row.state_root is not None
        return full or row.step == self._last_step

    def cut(self, key: PrivateKey) -> str:
        """End the segment with the newest row; return the newest segment's record hash, in hex.

        Its rows must be durable. The record is the same on every host: its hash covers what is
        signed, not who did.
        """
        if self._open:
            payload = encode_statement(segment_of(self._run, self._attempt, self._open))
            self._newest = record_hash(payload).hex()
            if self._file is not None:
                self._file.append(sign(payload, [key]))
                self._file.sync()
            self._open = []
        return self._newest

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def open_segments(
    run: RunDirectory, grant: AttemptGrant, *, run_id: str, rank: int, last_step: int
) -> SegmentCutter | None:
    """Return what cuts the rows of an attempt into segments, None where its steps are logged."""
    if not grant.segments:
        return None
    file = None
    if rank == 0:
        path = run.segment_file(attempt=grant.number)
        if path.exists():
            recover(path)
        file = StepFile(path)
    return SegmentCutter(
        run=run_id,
        attempt=grant.record,
        every=grant.segments,
        last_step=last_step,
        file=file,
    )
