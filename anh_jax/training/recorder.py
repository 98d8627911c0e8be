"""Signs each step's row with this host's key and appends it to this host's step file."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from anh_jax.training.checkpoints import Position
from attest.canonical import hex_float
from attest.envelope import Envelope, row_hash, sign
from attest.keys import PrivateKey
from attest.statements import Row, Scalars, Step, cut_row, encode_statement


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What one step is, as hex digests and Python floats: a function of (genesis, step) alone.

    `state_root` is None where the digest policy skips the state after this step.
    """

    step: int
    gradient_root: str
    state_root: str | None
    batch_root: str
    scalars: Scalars
    loss: float


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
    follows, `bound` the declared relative bound of every step.
    """

    def __init__(
        self,
        *,
        run: str,
        attempt: str,
        key: PrivateKey,
        file: RowFile,
        previous: str,
        bound: float,
    ):
        self._run = run
        self._attempt = attempt
        self._key = key
        self._file = file
        self._previous = previous
        self._bound = bound

    def record(self, facts: StepFacts) -> Position:
        """Sign the row of a step, append it, and return where it stands on the line."""
        row = Row(
            run=self._run,
            step=facts.step,
            prev=self._previous,
            gradient_root=facts.gradient_root,
            state_root=facts.state_root,
            batch_root=facts.batch_root,
            scalars=facts.scalars,
            loss=hex_float(facts.loss),
            bound=hex_float(self._bound),
        )
        envelope = sign(encode_statement(Step(attempt=self._attempt, row=row)), [self._key])
        self._file.append(envelope)
        self._previous = row_hash(cut_row(envelope.payload)).hex()
        return Position(row=self._previous, record=envelope.record_hash().hex())

    def sync(self) -> None:
        """Make every row signed so far durable."""
        self._file.sync()

    def close(self) -> None:
        """Make every row durable and close the file."""
        self._file.close()
