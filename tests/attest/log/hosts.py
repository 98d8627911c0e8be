"""A run directory that hosts write to: what they sign, in their own step files."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from attest.attempt_rows import AttemptRows
from attest.envelope import Envelope, Signature, sign
from attest.equivocation import encode_row_evidence
from attest.segment import segment_file
from attest.statements import Attempt, Segment, decode_statement
from attest.step_file import StepFile, SyncPolicy


class Run:
    """A run directory whose hosts sign every row, and the first of them segments where asked."""

    def __init__(self, directory: Path, lab: ModuleType, trainer: Any) -> None:
        self.directory = directory
        self.lab = lab
        self.trainer = trainer
        (directory / "statements").mkdir()
        (directory / "steps").mkdir()
        self.state("contract", trainer.published)
        self.state("genesis", trainer.genesis)

    @property
    def steps(self) -> Path:
        """Return where the hosts write."""
        return self.directory / "steps"

    def state(self, name: str, envelope: Envelope) -> None:
        """Write a statement of the run."""
        (self.directory / "statements" / f"{name}.json").write_bytes(envelope.to_bytes())

    def begin(self, number: int, **after: Any) -> None:
        """Open an attempt."""
        self.state(f"attempt-{number}", self.trainer.attempt(number, **after))

    def train(
        self, number: int, first: int, last: int, *, ranks: Sequence[int] | None = None
    ) -> None:
        """Sign steps, each host in its own file; `ranks` are the hosts that get so far."""
        names = self.trainer.worker_names(number)
        rows = self.trainer.train(number, first, last)
        for rank in range(len(names)) if ranks is None else ranks:
            self.write(number, rank, [sign(r.payload, [self.lab.key(names[rank])]) for r in rows])

    def write(self, number: int, rank: int, envelopes: Sequence[Envelope]) -> None:
        """Append what a host has signed to its file."""
        path = self.steps / f"{number}-{rank}.jsonl"
        with StepFile(path, SyncPolicy(records=10_000, seconds=3600.0)) as file:
            for envelope in envelopes:
                file.append(envelope)

    def row(self, number: int, rank: int, step: int, **changes: Any) -> Envelope:
        """Sign one step as one host sees it."""
        name = self.trainer.worker_names(number)[rank]
        return self.trainer.step(number, step, [name], **changes)

    def cut(self, number: int, first: int, last: int, **changes: Any) -> Envelope:
        """Sign a segment as the first host does."""
        envelope = self.trainer.segment(number, first, last, **changes)
        with StepFile(segment_file(self.steps, number)) as file:
            file.append(envelope)
        return envelope

    def reader(self, number: int = 1) -> AttemptRows:
        """Return what reads an attempt's rows again."""
        envelope = self.trainer.attempts[number]
        attempt = decode_statement(envelope.payload)
        assert isinstance(attempt, Attempt)
        return AttemptRows(self.steps, attempt, self.lab.record(envelope))

    def take(self, *segments: Envelope) -> list[tuple[Envelope, ...]]:
        """Read the rows of the first attempt's segments again, one segment after the other."""
        reader = self.reader()
        found: list[tuple[Envelope, ...]] = []
        for envelope in segments:
            segment = decode_statement(envelope.payload)
            assert isinstance(segment, Segment)
            found.append(reader.take(segment))
        return found

    def told(self, *records: Envelope, attempt: int = 1) -> bytes:
        """Return records of one attempt as evidence of two stories."""
        return encode_row_evidence(self.trainer.genesis, self.trainer.attempts[attempt], records)

    @staticmethod
    def forged(envelope: Envelope) -> Envelope:
        """Return an envelope whose signatures are nobody's."""
        return Envelope(envelope.payload, (Signature(envelope.signatures[0].keyid, bytes(64)),))
