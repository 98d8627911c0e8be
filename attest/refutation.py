"""A refutation: one operator that a run's own signed recording shows to be computed wrongly.

    {"artifact": base64, "attempt": envelope, "claim": {"bound", "committed", "element",
     "excess", "output"}, "contract": {...}, "entry": {...}, "format": "anh refutation v1",
     "genesis": envelope, "index", "inputs": [base64 value], "outputs": [base64 value],
     "path": [hex], "recording": envelope, "row": envelope, "signature": base64}

The file leads from the run's id (the hash of genesis) over the contract to the stored program, and
over the run key's signature on the recording to the operands and results of one operator of it.
What remains is to run that operator: `anh_jax.audit.leaf` does, and the claim's numbers, two
significant digits each, must come out again.
"""

import hashlib
from dataclasses import dataclass
from typing import cast

from attest.canonical import JSON
from attest.contract import Contract
from attest.envelope import Envelope, keyid, verify_signatures
from attest.file_fields import (
    hold,
    json_of,
    read_bytes,
    read_count,
    read_envelope,
    read_hashes,
    read_list,
    read_object,
    text,
    write_object,
)
from attest.merkle import verify_inclusion
from attest.recording import ENTRY, Entry, Recording, Value, load_entry
from attest.schema import Count, Text, built
from attest.signed_step import SignedStep, verify_step
from attest.statements import Genesis

FORMAT = "anh refutation v1"
_FIELDS = frozenset(
    (
        *("artifact", "attempt", "claim", "contract", "entry", "format", "genesis", "index"),
        *("inputs", "outputs", "path", "recording", "row", "signature"),
    )
)
_MAX_PATH = 64
_MAX_VALUES = 1 << 16


@dataclass(frozen=True, slots=True)
class Claim:
    """Where an operator's result leaves its bound and how far; numbers in two digits, as text."""

    output: Count
    element: Count
    committed: Text
    bound: Text
    excess: Text


_CLAIM = built(Claim)


@dataclass(frozen=True, slots=True)
class Signed:
    """The envelopes that lead from a run to a recording of one of its steps."""

    contract: Contract
    genesis: Envelope
    attempt: Envelope
    row: Envelope
    recording: Envelope

    @property
    def step(self) -> SignedStep:
        """Return what leads to the row alone."""
        return SignedStep(self.contract, self.genesis, self.attempt, self.row)

    def fields(self) -> dict[str, JSON]:
        """Return the fields of a file that hold this."""
        return {**self.step.fields(), "recording": json_of(self.recording.to_bytes())}

    @classmethod
    def from_fields(cls, value: dict[str, JSON]) -> "Signed":
        """Read the fields without judging them; FormatError for others."""
        step = SignedStep.from_fields(value)
        recording = read_envelope(value["recording"])
        return cls(step.contract, step.genesis, step.attempt, step.row, recording)


@dataclass(frozen=True, slots=True)
class Refutation:
    """Hold one operator of a recording, opened; `signature` and `artifact` are its program's bytes.

    `index` is the entry's place among the recording's, `path` leads from it to the root.
    """

    signed: Signed
    signature: bytes
    artifact: bytes
    entry: Entry
    index: int
    path: tuple[bytes, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    claim: Claim

    def to_bytes(self) -> bytes:
        """Write the file as canonical JSON.

        Raises:
            FormatError: it would be larger than MAX_BYTES.
        """
        value: dict[str, JSON] = {
            **self.signed.fields(),
            "artifact": text(self.artifact),
            "claim": _CLAIM.dump(self.claim),
            "entry": ENTRY.dump(self.entry),
            "format": FORMAT,
            "index": self.index,
            "inputs": [text(value.to_bytes()) for value in self.inputs],
            "outputs": [text(value.to_bytes()) for value in self.outputs],
            "path": [node.hex() for node in self.path],
            "signature": text(self.signature),
        }
        return write_object(value, what=f"the operands of {self.entry.name} are")

    @classmethod
    def from_bytes(cls, data: bytes) -> "Refutation":
        """Read the file without judging it; FormatError for any other bytes."""
        value = read_object(data, fields=_FIELDS, form=FORMAT)
        return cls(
            signed=Signed.from_fields(value),
            signature=read_bytes(value["signature"], "signature"),
            artifact=read_bytes(value["artifact"], "artifact"),
            entry=load_entry(value["entry"]),
            index=read_count(value["index"], "index"),
            path=read_hashes(value["path"], "path", longest=_MAX_PATH),
            inputs=_values(value["inputs"], "inputs"),
            outputs=_values(value["outputs"], "outputs"),
            claim=cast(Claim, _CLAIM.load(value["claim"], "claim")),
        )


@dataclass(frozen=True, slots=True)
class Accused:
    """Whom a verified refutation is about: the run's id, its step, and the recording it signed."""

    run: str
    step: int
    genesis: Genesis
    recording: Recording


def verify_signed(signed: Signed) -> Accused:
    """Check that the run key signed a recording of a step that the run has signed.

    Raises:
        RefusedError: naming the check that failed.
        FormatError: an envelope holds another statement than its place needs.
    """
    accused = verify_step(signed.step)
    run_key = bytes.fromhex(accused.genesis.run_key)
    recording = Recording.from_envelope(signed.recording)
    verify_signatures(signed.recording, {keyid(run_key): run_key})
    hold(recording.run == accused.run, "recording", "belongs to another run")
    row_hash = accused.row.hash().hex()
    hold(
        recording.step == accused.row.step and recording.row == row_hash,
        "recording",
        "is of another row",
    )
    programs = signed.contract.programs
    hold(
        recording.program in (programs.gradient, programs.update),
        "recording",
        "is of no program that the contract names for a step",
    )
    return Accused(accused.run, recording.step, accused.genesis, recording)


def verify_refutation(refutation: Refutation) -> Accused:
    """Check all that needs no program: signatures, the program's id, the path, every value.

    The operator itself is not run. Raises RefusedError naming the check that failed.
    """
    accused = verify_signed(refutation.signed)
    recording, entry = accused.recording, refutation.entry
    program = program_id(refutation.signature, refutation.artifact)
    hold(program == recording.program, "program", "the program is not the one recorded")
    hold(refutation.index < recording.count, "path", "the entry lies outside the recording")
    root = bytes.fromhex(recording.root)
    verify_inclusion(refutation.index, recording.count, entry.leaf(), refutation.path, root)
    for side, values, digests in (
        ("input", refutation.inputs, entry.inputs),
        ("output", refutation.outputs, entry.outputs),
    ):
        found = tuple(value.digest() for value in values)
        hold(found == digests, side, f"an {side} is not the value that the entry commits")
    return accused


def program_id(signature: bytes, artifact: bytes) -> str:
    """Return a stored program's id, hex (docs/protocol.md, "Programs")."""
    parts = hashlib.sha256(signature).digest() + hashlib.sha256(artifact).digest()
    return hashlib.sha256(parts).hexdigest()


def two_digits(value: float) -> str:
    """Write a number of a claim: two significant digits."""
    return f"{value:.1e}"


def claims(text: str, value: float) -> bool:
    """Tell whether a claimed number is this one; its last digit may fall on a rounding's edge."""
    return text in (two_digits(value * (1 - 1e-9)), two_digits(value * (1 + 1e-9)))


def _values(value: JSON, name: str) -> tuple[Value, ...]:
    items = read_list(value, name, longest=_MAX_VALUES)
    return tuple(Value.from_bytes(read_bytes(item, name)) for item in items)
