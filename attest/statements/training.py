"""What a trainer says: contract, genesis, attempt, step, segment, final."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from attest.contract import Contract
from attest.errors import FormatError
from attest.schema import (
    COUNT,
    HEX64,
    HEX_FLOAT,
    PUBLIC_KEY,
    TEXT,
    Count,
    Elsewhere,
    Facts,
    Hex64,
    Ordinal,
    PublicKey,
    Text,
    built,
    either,
    listed,
    mapping,
    matching,
    one_of,
    optional,
)
from attest.statements.row import Row
from attest.statements.subject import (
    GRADIENT,
    RECORD,
    SHA256,
    STATE,
    LogHead,
    Subject,
    SubjectDigest,
)

# Relative, no empty, hidden or parent part: a name can be joined to a directory as it is.
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


@dataclass(frozen=True, slots=True)
class ContractStatement:
    """Publish a contract under its author's name."""

    KIND: ClassVar[str] = "contract"

    author: Text
    contract: Contract

    def subjects(self) -> tuple[Subject, ...]:
        """Name the contract by its id."""
        return (Subject("contract", SHA256, self.contract.id),)


@dataclass(frozen=True, slots=True)
class Genesis:
    """Open a run: state 0, contract, plan, run key, and where it is computed."""

    KIND: ClassVar[str] = "genesis"

    state_root: SubjectDigest
    contract: Hex64
    plan: Hex64
    run_key: PublicKey
    trainer: Text
    execution_class: Annotated[
        Mapping[str, str | int], mapping(either(TEXT, COUNT, "text or a count"))
    ]
    environment: Facts
    digest_policy: Annotated[str, matching(r"every [1-9][0-9]{0,8}", "'every N'")]
    alg: Annotated[str, one_of("blake3", "sha256")]
    init: Annotated[str, one_of("exact", "class")]
    seed: Annotated[str, one_of("fixed")]

    def subjects(self) -> tuple[Subject, ...]:
        """Name state 0."""
        return (Subject("state", STATE, self.state_root),)

    @staticmethod
    def from_subjects(subjects: tuple[Subject, ...]) -> dict[str, Any]:
        """Take state 0's digest."""
        return {"state_root": subjects[0].digest}


@dataclass(frozen=True, slots=True)
class Mesh:
    """Give the sizes of the three mesh axes."""

    data: Ordinal
    fsdp: Ordinal
    tensor: Ordinal


@dataclass(frozen=True, slots=True)
class Attempt:
    """Start or resume a run: from which record, with which worker keys (one a process, by rank)."""

    KIND: ClassVar[str] = "attempt"

    resumed_from: SubjectDigest
    run: Hex64
    number: Ordinal
    step: Count
    worker_keys: Annotated[tuple[str, ...], listed(PUBLIC_KEY, least=1)]
    mesh: Mesh
    processes: Ordinal
    environment: Facts
    reason: Annotated[str, one_of("start", "resume", "worker lost")]

    def __post_init__(self) -> None:
        if len(set(self.worker_keys)) != len(self.worker_keys):
            raise FormatError("attempt.workerKeys: a key is listed twice", code="field")
        if len(self.worker_keys) != self.processes:
            raise FormatError("attempt.workerKeys: need one key a process", code="field")
        if (self.step == 0) != (self.resumed_from == self.run):
            raise FormatError(
                "attempt.step: is 0 exactly when the attempt starts from genesis", code="field"
            )
        if (self.number == 1) != (self.reason == "start") or (self.number == 1 and self.step):
            raise FormatError(
                "attempt.number: the first attempt, and no other, starts the run", code="field"
            )

    def subjects(self) -> tuple[Subject, ...]:
        """Name the record resumed from."""
        return (Subject("record", RECORD, self.resumed_from),)

    @staticmethod
    def from_subjects(subjects: tuple[Subject, ...]) -> dict[str, Any]:
        """Take the record resumed from."""
        return {"resumed_from": subjects[0].digest}


@dataclass(frozen=True, slots=True)
class Step:
    """Commit one step of one attempt; the row holds everything that a replay reproduces."""

    KIND: ClassVar[str] = "step"

    attempt: Hex64
    row: Row

    def subjects(self) -> tuple[Subject, ...]:
        """Name the state after the step, or the gradient where the state was not hashed."""
        if self.row.state_root is None:
            return (Subject("gradient", GRADIENT, self.row.gradient_root),)
        return (Subject("state", STATE, self.row.state_root),)


@dataclass(frozen=True, slots=True)
class Segment:
    """Commit the rows of steps first..last under one signature.

    `prev` is the hash of the row that `first` follows, `last_row` that of row `last`: segments form
    a chain that a log can check without seeing a row.
    """

    KIND: ClassVar[str] = "segment"

    state_root: SubjectDigest
    run: Hex64
    attempt: Hex64
    first: Ordinal
    last: Ordinal
    prev: Hex64
    last_row: Hex64
    rows_root: Hex64
    seen: Annotated[LogHead | None, optional(built(LogHead))]

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise FormatError("segment.last: comes before first", code="field")
        if (self.first == 1) != (self.prev == self.run):
            raise FormatError(
                f"segment.prev: step {self.first} must follow "
                f"{'the run' if self.first == 1 else 'a row'}",
                code="field",
            )

    def subjects(self) -> tuple[Subject, ...]:
        """Name the state after the last step."""
        return (Subject("state", STATE, self.state_root),)

    @staticmethod
    def from_subjects(subjects: tuple[Subject, ...]) -> dict[str, Any]:
        """Take the last state's digest."""
        return {"state_root": subjects[0].digest}


@dataclass(frozen=True, slots=True)
class Line:
    """Commit a whole run: RFC 6962 root over the row hashes of steps 0..T, and T + 1."""

    count: Ordinal
    root: Hex64


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """Name one exported weights file by SHA-256."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Final:
    """Close a run: last state, exported files (sorted by name), line, metrics."""

    KIND: ClassVar[str] = "final"

    state_root: SubjectDigest
    files: Annotated[tuple[ExportedFile, ...], Elsewhere()]
    run: Hex64
    line: Line
    steps: Ordinal
    attempts: Ordinal
    metrics: Annotated[
        Mapping[str, int | str], mapping(either(COUNT, HEX_FLOAT, "a count or hexadecimal float"))
    ]

    def __post_init__(self) -> None:
        if self.line.count != self.steps + 1:
            raise FormatError("final.line.count: is not steps + 1", code="field")
        names = [file.name for file in self.files]
        if any(a >= b for a, b in zip(names, names[1:], strict=False)):
            raise FormatError("final.subject: files must be sorted by name", code="field")
        for file in self.files:
            if not _FILE_NAME.fullmatch(file.name) or file.name == "state":
                raise FormatError(f"final.subject: file name {file.name!r} is unsafe", code="field")
            HEX64.load(file.sha256, f"final.subject.{file.name}")

    def subjects(self) -> tuple[Subject, ...]:
        """Name the last state, then the files."""
        files = (Subject(file.name, SHA256, file.sha256) for file in self.files)
        return (Subject("state", STATE, self.state_root), *files)

    @staticmethod
    def from_subjects(subjects: tuple[Subject, ...]) -> dict[str, Any]:
        """Take the last state's digest and the files."""
        files = tuple(ExportedFile(s.name, s.digest) for s in subjects[1:])
        return {"state_root": subjects[0].digest, "files": files}
