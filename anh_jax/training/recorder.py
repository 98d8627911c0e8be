"""Signs each step's row with this host's key and appends it to this host's step file."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from anh_jax.errors import AnhError
from anh_jax.training.checkpoints import Position
from anh_jax.training.segments import SegmentCutter
from attest.canonical import hex_float
from attest.envelope import Envelope, row_hash, sign
from attest.keys import PrivateKey
from attest.segment import RowMark
from attest.statements import Row, Scalars, Step, cut_row, encode_statement


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What one step is, as hex digests and Python floats: a function of (genesis, step) alone.

    `state_root` is None where the digest policy skips the state after this step; `bound` is the
    relative bound declared with it, None where the recorder's own counts.
    """

    step: int
    gradient_root: str
    state_root: str | None
    batch_root: str
    scalars: Scalars
    loss: float
    bound: float | None = None


@runtime_checkable
class RowFile(Protocol):
    """Where signed rows go; `attest.step_file.StepFile` is the durable one."""

    def append(self, envelope: Envelope) -> None:
        """Add one signed row."""
        ...

    def sync(self) -> None:
        """Make every row added so far durable."""
        ...

    def close(self) -> None:
        """Make every row durable and take no more."""
        ...


class StepRecorder:
    """Keeps the chain of rows of one attempt on one host.

    `run` and `attempt` are record hashes in hex, `previous` the hash of the row that the first row
    follows, `bound` the declared relative bound of steps whose facts have none (None: those declare
    none). `segments` cuts the rows into
    segments where these are logged instead of steps.
    """

    def __init__(
        self,
        *,
        run: str,
        attempt: str,
        key: PrivateKey,
        file: RowFile,
        previous: str,
        bound: float | None = None,
        segments: SegmentCutter | None = None,
    ):
        self._run = run
        self._attempt = attempt
        self._key = key
        self._file = file
        self._previous = previous
        self._bound = bound
        self._segments = segments
        self._newest: Position | None = None

    @property
    def cuts_segments(self) -> bool:
        """Tell whether segments are logged, which end only with rows that have a state root."""
        return self._segments is not None

    def record(self, facts: StepFacts) -> Position:
        """Sign the row of a step, append it, and return where it stands on the line."""
        bound = self._bound if facts.bound is None else facts.bound
        row = Row(
            run=self._run,
            step=facts.step,
            prev=self._previous,
            gradient_root=facts.gradient_root,
            state_root=facts.state_root,
            batch_root=facts.batch_root,
            scalars=facts.scalars,
            loss=hex_float(facts.loss),
            bound=None if bound is None else hex_float(bound),
        )
        envelope = sign(encode_statement(Step(attempt=self._attempt, row=row)), [self._key])
        self._file.append(envelope)
        self._previous = row_hash(cut_row(envelope.payload)).hex()
        self._newest = Position(row=self._previous, record=envelope.record_hash().hex())
        if self._segments is not None:
            mark = RowMark(row.step, row.prev, self._previous, row.state_root)
            if self._segments.add(mark):
                self._cut(self._segments)
        return self._newest

    def place(self) -> Position:
        """Make the newest row durable and return where it stands, by a record that is logged.

        A segment ends with it where segments are logged. Raises AnhError before the first row.
        """
        self.sync()
        if self._segments is not None:
            self._cut(self._segments)
        if self._newest is None:
            raise AnhError("no row of this attempt is signed yet; a training checkpoint needs one")
        return self._newest

    def _cut(self, segments: SegmentCutter) -> None:
        # A segment that is durable must never speak of a row that is not.
        self.sync()
        record = segments.cut(self._key)
        if self._newest is not None:
            self._newest = Position(row=self._newest.row, record=record)

    def sync(self) -> None:
        """Make every row signed so far durable."""
        self._file.sync()

    def close(self) -> None:
        """Make every row durable and close the file."""
        self._file.close()
        if self._segments is not None:
            self._segments.close()
