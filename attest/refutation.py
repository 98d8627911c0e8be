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

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TypeVar, cast

from attest import canonical
from attest.canonical import JSON
from attest.contract import Contract
from attest.envelope import Envelope, Signature, keyid, verify_signatures
from attest.errors import FormatError, RefusedError
from attest.merkle import verify_inclusion
from attest.recording import ENTRY, Entry, Recording, Value, load_entry
from attest.schema import Count, Text, built
from attest.statements import Attempt, Genesis, Step, decode_statement

FORMAT = "anh refutation v1"
# What `anh verify` reads at most; tensors take four thirds of their bytes.
MAX_BYTES = 32 << 20
_FIELDS = frozenset(
    (
        *("artifact", "attempt", "claim", "contract", "entry", "format", "genesis", "index"),
        *("inputs", "outputs", "path", "recording", "row", "signature"),
    )
)
_MAX_PATH = 64
_Kind = TypeVar("_Kind", Genesis, Attempt, Step)


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
        signed = self.signed
        data = canonical.encode(
            {
                "artifact": _text(self.artifact),
                "attempt": _object(signed.attempt.to_bytes()),
                "claim": _CLAIM.dump(self.claim),
                "contract": _object(signed.contract.to_bytes()),
                "entry": ENTRY.dump(self.entry),
                "format": FORMAT,
                "genesis": _object(signed.genesis.to_bytes()),
                "index": self.index,
                "inputs": [_text(value.to_bytes()) for value in self.inputs],
                "outputs": [_text(value.to_bytes()) for value in self.outputs],
                "path": [node.hex() for node in self.path],
                "recording": _object(signed.recording.to_bytes()),
                "row": _object(signed.row.to_bytes()),
                "signature": _text(self.signature),
            }
        )
        if len(data) > MAX_BYTES:
            raise FormatError(
                f"refutation: {len(data):,} bytes, more than {MAX_BYTES:,}; the operands of "
                f"{self.entry.name} are too large for a file",
                code="too large",
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Refutation":
        """Read the file without judging it; FormatError for any other bytes."""
        value = canonical.decode(data, max_bytes=MAX_BYTES)
        if not isinstance(value, dict) or value.keys() != _FIELDS or value["format"] != FORMAT:
            raise FormatError(f"refutation: no object of the format {FORMAT!r}", code="fields")
        path, index = value["path"], value["index"]
        if not isinstance(path, list) or len(path) > _MAX_PATH:
            raise FormatError("refutation: path is no list of hashes", code="fields")
        if type(index) is not int or index < 0:
            raise FormatError("refutation: index is not a count", code="fields")
        return cls(
            signed=Signed(
                contract=Contract.from_bytes(canonical.encode(value["contract"])),
                genesis=_envelope(value["genesis"]),
                attempt=_envelope(value["attempt"]),
                row=_envelope(value["row"]),
                recording=_envelope(value["recording"]),
            ),
            signature=_bytes(value["signature"], "signature"),
            artifact=_bytes(value["artifact"], "artifact"),
            entry=load_entry(value["entry"]),
            index=index,
            path=tuple(_hash(node) for node in path),
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
    genesis = _statement(signed.genesis, Genesis)
    run = signed.genesis.record_hash().hex()
    run_key = bytes.fromhex(genesis.run_key)
    _hold(genesis.contract == signed.contract.id, "contract", "genesis names another contract")
    verify_signatures(signed.genesis, {keyid(run_key): run_key})
    attempt = _statement(signed.attempt, Attempt)
    _hold(attempt.run == run, "attempt", "belongs to another run")
    verify_signatures(signed.attempt, {keyid(run_key): run_key})
    step = _statement(signed.row, Step)
    _hold(step.row.run == run, "row", "belongs to another run")
    _hold(step.attempt == signed.attempt.record_hash().hex(), "row", "is of another attempt")
    _check_workers(signed.row, attempt)
    recording = Recording.from_envelope(signed.recording)
    verify_signatures(signed.recording, {keyid(run_key): run_key})
    _hold(recording.run == run, "recording", "belongs to another run")
    row_hash = step.row.hash().hex()
    _hold(
        recording.step == step.row.step and recording.row == row_hash,
        "recording",
        "is of another row",
    )
    programs = signed.contract.programs
    _hold(
        recording.program in (programs.gradient, programs.update),
        "recording",
        "is of no program that the contract names for a step",
    )
    return Accused(run, recording.step, genesis, recording)


def verify_refutation(refutation: Refutation) -> Accused:
    """Check all that needs no program: signatures, the program's id, the path, every value.

    The operator itself is not run. Raises RefusedError naming the check that failed.
    """
    accused = verify_signed(refutation.signed)
    recording, entry = accused.recording, refutation.entry
    program = program_id(refutation.signature, refutation.artifact)
    _hold(program == recording.program, "program", "the program is not the one recorded")
    _hold(refutation.index < recording.count, "path", "the entry lies outside the recording")
    root = bytes.fromhex(recording.root)
    verify_inclusion(refutation.index, recording.count, entry.leaf(), refutation.path, root)
    for side, values, digests in (
        ("input", refutation.inputs, entry.inputs),
        ("output", refutation.outputs, entry.outputs),
    ):
        found = tuple(value.digest() for value in values)
        _hold(found == digests, side, f"an {side} is not the value that the entry commits")
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


def _check_workers(row: Envelope, attempt: Attempt) -> None:
    known = {keyid(bytes.fromhex(key)): bytes.fromhex(key) for key in attempt.worker_keys}
    signers: tuple[Signature, ...] = row.signatures
    _hold(
        all(signature.keyid in known for signature in signers),
        "row",
        "is signed by no worker of the attempt",
    )
    verify_signatures(row, {s.keyid: known[s.keyid] for s in signers})


def _statement(envelope: Envelope, kind: type[_Kind]) -> _Kind:
    statement = decode_statement(envelope.payload)
    if not isinstance(statement, kind):
        raise FormatError(
            f"refutation: holds a {statement.KIND} where another statement belongs", code="kind"
        )
    return statement


def _hold(holds: object, check: str, words: str) -> None:
    if not holds:
        raise RefusedError(f"refutation: {check}: {words}", check=check)


def _envelope(value: JSON) -> Envelope:
    return Envelope.from_bytes(canonical.encode(value))


def _object(data: bytes) -> JSON:
    return canonical.decode(data, max_bytes=len(data))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(value: JSON, name: str) -> bytes:
    if not isinstance(value, str):
        raise FormatError(f"refutation: {name} is not text", code="base64")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"refutation: {name} is broken base64", code="base64") from None
    if _text(data) != value:
        raise FormatError(f"refutation: {name} is not canonical base64", code="base64")
    return data


def _values(value: JSON, name: str) -> tuple[Value, ...]:
    if not isinstance(value, list):
        raise FormatError(f"refutation: {name} is not a list", code="fields")
    return tuple(Value.from_bytes(_bytes(item, name)) for item in value)


def _hash(value: JSON) -> bytes:
    try:
        data = bytes.fromhex(cast(str, value))
    except (TypeError, ValueError):
        raise FormatError("refutation: path holds no hash", code="fields") from None
    if len(data) != 32 or data.hex() != value:
        raise FormatError("refutation: path holds no hash", code="fields")
    return data
