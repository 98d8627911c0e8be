"""The run proof (`run.proof`): what a run claims and who checked it, in one canonical JSON file.

    {"checkpoint": {"signatures": ["name base64", ...], "text": "origin\\nsize\\nroot\\n"},
     "nodes": ["base64", ...],
     "records": [{"index": 0, "signatures": [{"keyid": ..., "sig": ...}], "statement": {...}}, ...],
     "sizes": [...],
     "statusCheckpoint": null,
     "version": 1}

`records` are log entries by rising index; a statement is canonical JSON as it stands, so a record's
DSSE envelope, and with it the log's leaf, follows from its signatures. `nodes` are the hashes that
tie all records to the checkpoint's root (`multiproof`), and the root of the first n entries for
every n in `sizes`: the sizes of the status, and of checkpoints that readers remember.
`statusCheckpoint` is the cosigned checkpoint at the status's size; null if nothing but the status
was logged after it. A note's signature lines, the log's first and the witnesses' sorted, are kept
without their em dash, which is not ASCII.

A file has one spelling: unknown fields, other base64, trailing bytes are refused.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import TypeVar

from attest import canonical
from attest.canonical import JSON
from attest.envelope import Envelope, Signature
from attest.errors import FormatError
from attest.merkle import leaf_hash
from attest.statements import Statement, decode_statement

__all__ = [
    "FULL_PROOF_BYTES",
    "MAX_PROOF_BYTES",
    "ProofRecord",
    "RunProof",
    "encode_proof",
    "parse_proof",
]

VERSION = 1
MAX_PROOF_BYTES = 1 << 20
# A record takes at most 48 KiB here and its nodes less than 4 KiB: above this size one more may not
# have fitted, below it nothing needs to be left out.
FULL_PROOF_BYTES = MAX_PROOF_BYTES - (1 << 16)
_DASH = "\N{EM DASH} "
_T = TypeVar("_T", bound=Statement)


@dataclass(frozen=True, slots=True)
class ProofRecord:
    """Hold one log entry: index, envelope, the statement inside.

    `hash` is the record hash as statements name it (64 hex digits), `leaf` the log's leaf hash.
    """

    index: int
    envelope: Envelope
    statement: Statement
    hash: str
    leaf: bytes

    @classmethod
    def read(cls, index: int, envelope: Envelope) -> "ProofRecord":
        """Read the statement of a log entry.

        Raises:
            FormatError: if the payload is no statement or the envelope is too large for a log.
        """
        return cls(
            index,
            envelope,
            decode_statement(envelope.payload),
            envelope.record_hash().hex(),
            leaf_hash(envelope.to_bytes()),
        )

    @property
    def signer(self) -> str:
        """Return the first signature's keyid: the only one, in records of a single signer."""
        return self.envelope.signatures[0].keyid

    @property
    def where(self) -> str:
        """Return how messages name the record."""
        return f"{self.statement.KIND} at index {self.index}"


@dataclass(frozen=True, slots=True)
class RunProof:
    """Hold a parsed proof; nothing in it is checked yet beyond its form."""

    checkpoint: bytes
    status_checkpoint: bytes | None
    records: tuple[ProofRecord, ...]
    sizes: tuple[int, ...]
    nodes: tuple[bytes, ...]

    def of_kind(self, kind: type[_T]) -> tuple[ProofRecord, ...]:
        """Return the records of one statement class, by rising index."""
        return tuple(r for r in self.records if isinstance(r.statement, kind))


def encode_proof(proof: RunProof) -> bytes:
    """Write the file's bytes; `parse_proof` is the inverse."""
    second = proof.status_checkpoint
    return canonical.encode(
        {
            "checkpoint": _note_json(proof.checkpoint),
            "nodes": [_base64(node) for node in proof.nodes],
            "records": [_record_json(record) for record in proof.records],
            "sizes": proof.sizes,
            "statusCheckpoint": None if second is None else _note_json(second),
            "version": VERSION,
        }
    )


def parse_proof(data: bytes) -> RunProof:
    """Read the file's bytes.

    Raises:
        FormatError: for every spelling but the one `encode_proof` writes.
    """
    names = ("checkpoint", "nodes", "records", "sizes", "statusCheckpoint", "version")
    top = _fields(canonical.decode(data, max_bytes=MAX_PROOF_BYTES), "proof", names)
    if type(top["version"]) is not int or top["version"] != VERSION:
        raise FormatError(f"proof.version: this program reads version {VERSION}", code="version")
    records = tuple(
        _record(item, f"proof.records[{i}]")
        for i, item in enumerate(_items(top["records"], "proof.records"))
    )
    _check_rising([record.index for record in records], "proof.records")
    if len({record.hash for record in records}) != len(records):
        raise FormatError("proof.records: a record comes twice", code="duplicate record")
    sizes = [_integer(item, "proof.sizes") for item in _items(top["sizes"], "proof.sizes")]
    _check_rising(sizes, "proof.sizes")
    second = top["statusCheckpoint"]
    return RunProof(
        checkpoint=_note(top["checkpoint"], "proof.checkpoint"),
        status_checkpoint=None if second is None else _note(second, "proof.statusCheckpoint"),
        records=records,
        sizes=tuple(sizes),
        nodes=tuple(_unbase64(n, "proof.nodes") for n in _items(top["nodes"], "proof.nodes")),
    )


def _record_json(record: ProofRecord) -> JSON:
    return {
        "index": record.index,
        "signatures": [
            {"keyid": s.keyid, "sig": _base64(s.sig)} for s in record.envelope.signatures
        ],
        "statement": canonical.decode(
            record.envelope.payload, max_bytes=len(record.envelope.payload)
        ),
    }


def _record(value: JSON, where: str) -> ProofRecord:
    fields = _fields(value, where, ("index", "signatures", "statement"))
    signatures = [
        _signature(item, f"{where}.signatures")
        for item in _items(fields["signatures"], f"{where}.signatures")
    ]
    envelope = Envelope(canonical.encode(fields["statement"]), tuple(signatures))
    return ProofRecord.read(_integer(fields["index"], f"{where}.index"), envelope)


def _signature(value: JSON, where: str) -> Signature:
    fields = _fields(value, where, ("keyid", "sig"))
    return Signature(_text(fields["keyid"], where), _unbase64(fields["sig"], where))


def _note_json(note: bytes) -> JSON:
    """Split a signed note into text and signature lines (C2SP signed-note)."""
    text, _, lines = note.decode("utf-8").partition("\n\n")
    signatures = lines.removesuffix("\n").split("\n")
    if not all(line.startswith(_DASH) for line in signatures):
        raise FormatError("checkpoint: not a signed note", code="note")
    lines = [line.removeprefix(_DASH) for line in signatures]
    return {"signatures": tuple(_ordered(text, lines)), "text": text + "\n"}


def _note(value: JSON, where: str) -> bytes:
    fields = _fields(value, where, ("signatures", "text"))
    text = _text(fields["text"], where)
    lines = [_text(item, where) for item in _items(fields["signatures"], where)]
    # A blank line inside would move the border between text and signatures.
    if "\n\n" in text or not text.endswith("\n") or any("\n" in line for line in lines):
        raise FormatError(f"{where}: not a signed note", code="note")
    if lines != _ordered(text, lines):
        raise FormatError(f"{where}: signatures are out of order", code="order")
    return (text + "\n" + "".join(f"{_DASH}{line}\n" for line in lines)).encode("utf-8")


def _ordered(text: str, lines: list[str]) -> list[str]:
    """Sort signature lines: the log's, which bears the origin's name, then the witnesses'."""
    origin = text.partition("\n")[0]
    return sorted(lines, key=lambda line: (not line.startswith(f"{origin} "), line))


def _fields(value: JSON, where: str, names: tuple[str, ...]) -> dict[str, JSON]:
    if not isinstance(value, dict) or value.keys() != set(names):
        raise FormatError(
            f"{where}: expected an object of exactly {', '.join(names)}", code="fields"
        )
    return value


def _items(value: JSON, where: str) -> list[JSON]:
    if not isinstance(value, list):
        raise FormatError(f"{where}: expected a list", code="type")
    return value


def _text(value: JSON, where: str) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{where}: expected text", code="type")
    return value


def _integer(value: JSON, where: str) -> int:
    if type(value) is not int or value < 0:
        raise FormatError(f"{where}: expected an integer, not negative", code="type")
    return value


def _check_rising(values: list[int], where: str) -> None:
    if any(a >= b for a, b in zip(values, values[1:], strict=False)):
        raise FormatError(f"{where}: must rise, each only once", code="order")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(value: JSON, where: str) -> bytes:
    text = _text(value, where)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{where}: broken base64", code="base64") from None
    # Python ignores the unused low bits before the padding: two spellings of one byte string.
    if _base64(data) != text:
        raise FormatError(f"{where}: base64 is not canonical", code="base64")
    return data
