"""A refutation of a recording: it is not the evaluation of its program at what the run commits.

    {"artifact": base64, "attempt": envelope, "before": row or null, "committed": tensor or null,
     "contract": {...}, "entries": [{"entry", "index", "path"}], "format":
     "anh recording refutation v1", "genesis": envelope, "kind", "operand", "recording": envelope,
     "row": envelope, "signature": base64, "values": [base64 value]}

Three kinds. `order`: the one entry is not the operator that the program evaluates at its index.
`operand`: what the first entry took as operand number `operand` is not the result of the second,
which the program feeds it, nor, with one entry, the committed tensor of the state before the step
(`committed`, its bytes in `values`). `end`: the entries, one for each microbatch, give a tensor of
the gradient, whose sum over `values` is not the committed one, the last of `values`.

A committed tensor is `{"header": hex, "setIndex", "setSiblings": [hex], "structure": hex,
"tensors", "top": hex}`: `top` is the root of its tiles (`attest.digest_tree`), which leads to the
gradient's or the state's root. Signatures and paths are checked here; the program's wiring, the
tensor's tiles and the sum are computed by `anh_jax.audit.recording_refutation`.
"""

from dataclasses import dataclass
from typing import cast

from attest import canonical
from attest.canonical import JSON
from attest.digest_tree import (
    DigestLevel,
    climb,
    level_hash,
    set_turns,
    state_bytes,
    tensor_bytes,
)
from attest.errors import FormatError
from attest.file_fields import (
    hold,
    json_of,
    read_bytes,
    read_count,
    read_hashes,
    read_list,
    read_object,
    text,
    write_object,
)
from attest.merkle import verify_inclusion
from attest.recording import ENTRY, Entry, Value, load_entry
from attest.refutation import Accused, Signed, program_id, verify_signed
from attest.signed_step import STEP_FIELDS, AccusedStep, verify_step
from attest.statements import Row
from attest.tensor_header import TensorHeader

FORMAT = "anh recording refutation v1"
KINDS = ("order", "operand", "end")
_FIELDS = STEP_FIELDS | frozenset(
    (
        *("artifact", "before", "committed", "entries", "format", "kind", "operand"),
        *("recording", "signature", "values"),
    )
)
_TENSOR_FIELDS = frozenset(("header", "setIndex", "setSiblings", "structure", "tensors", "top"))
_MAX_PATH = 64
_MAX_ENTRIES = 1 << 12
_MAX_TENSORS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class CommittedTensor:
    """One tensor of a committed tree by the root of its tiles, and what leads to the tree's."""

    header: TensorHeader
    top: bytes
    set_index: int
    set_siblings: tuple[bytes, ...]
    tensors: int
    structure: bytes

    def fields(self) -> dict[str, JSON]:
        """Return the tensor as a file holds it."""
        return {
            "header": self.header.to_bytes().hex(),
            "setIndex": self.set_index,
            "setSiblings": [node.hex() for node in self.set_siblings],
            "structure": self.structure.hex(),
            "tensors": self.tensors,
            "top": self.top.hex(),
        }

    @classmethod
    def from_fields(cls, value: JSON) -> "CommittedTensor":
        """Read a tensor; FormatError for any other value."""
        if not isinstance(value, dict) or value.keys() != _TENSOR_FIELDS:
            raise FormatError("refutation: committed is no tensor", code="fields")
        header = value["header"]
        try:
            data = bytes.fromhex(cast(str, header))
        except (TypeError, ValueError):
            raise FormatError("refutation: header is not hexadecimal", code="fields") from None
        if data.hex() != header:
            raise FormatError("refutation: header is not hexadecimal", code="fields")
        (structure,) = read_hashes([value["structure"]], "structure", longest=1)
        (top,) = read_hashes([value["top"]], "top", longest=1)
        return cls(
            header=TensorHeader.from_bytes(data),
            top=top,
            set_index=read_count(value["setIndex"], "setIndex"),
            set_siblings=read_hashes(value["setSiblings"], "setSiblings", longest=_MAX_PATH),
            tensors=read_count(value["tensors"], "tensors"),
            structure=structure,
        )

    def root(self, *, step: int, alg: str) -> bytes:
        """Return the root of the tree that the tensor leads to; RefusedError for no place in it."""
        hold(self.set_index < self.tensors <= _MAX_TENSORS, "committed", "lies outside its tree")
        turns = set_turns(self.set_index, self.tensors)
        hold(len(turns) == len(self.set_siblings), "committed", "has another number of siblings")
        hash_level = level_hash(alg)
        leaf = hash_level(DigestLevel.TENSOR, tensor_bytes(self.header.to_bytes(), self.top))
        found = climb(hash_level, DigestLevel.SET, leaf, turns, self.set_siblings)
        return hash_level(DigestLevel.STATE, state_bytes(step, self.tensors, self.structure, found))


@dataclass(frozen=True, slots=True)
class PlacedEntry:
    """An entry of a recording, its index, and the hashes that lead from it to the root."""

    entry: Entry
    index: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RecordingRefutation:
    """Hold what shows that a recording is no evaluation of its program at the committed inputs."""

    signed: Signed
    signature: bytes
    artifact: bytes
    kind: str
    entries: tuple[PlacedEntry, ...]
    operand: int = 0
    before: Row | None = None
    committed: CommittedTensor | None = None
    values: tuple[Value, ...] = ()

    def to_bytes(self) -> bytes:
        """Write the file as canonical JSON; FormatError where it would be too large."""
        value: dict[str, JSON] = {
            **self.signed.fields(),
            "artifact": text(self.artifact),
            "before": None if self.before is None else json_of(self.before.to_bytes()),
            "committed": None if self.committed is None else self.committed.fields(),
            "entries": [
                {
                    "entry": ENTRY.dump(placed.entry),
                    "index": placed.index,
                    "path": [node.hex() for node in placed.path],
                }
                for placed in self.entries
            ],
            "format": FORMAT,
            "kind": self.kind,
            "operand": self.operand,
            "signature": text(self.signature),
            "values": [text(value.to_bytes()) for value in self.values],
        }
        return write_object(value, what="the tensors are")

    @classmethod
    def from_bytes(cls, data: bytes) -> "RecordingRefutation":
        """Read the file without judging it; FormatError for any other bytes."""
        value = read_object(data, fields=_FIELDS, form=FORMAT)
        before, committed, kind = value["before"], value["committed"], value["kind"]
        if kind not in KINDS:
            raise FormatError(f"refutation: kind is none of {', '.join(KINDS)}", code="fields")
        entries = read_list(value["entries"], "entries", longest=_MAX_ENTRIES)
        values = read_list(value["values"], "values", longest=_MAX_ENTRIES + 1)
        return cls(
            signed=Signed.from_fields(value),
            signature=read_bytes(value["signature"], "signature"),
            artifact=read_bytes(value["artifact"], "artifact"),
            kind=cast(str, kind),
            entries=tuple(map(_placed, entries)),
            operand=read_count(value["operand"], "operand"),
            before=None if before is None else Row.from_bytes(canonical.encode(before)),
            committed=None if committed is None else CommittedTensor.from_fields(committed),
            values=tuple(Value.from_bytes(read_bytes(x, "values")) for x in values),
        )


@dataclass(frozen=True, slots=True)
class ShownRecording:
    """Whom a verified file is about: the recording and the row that it is of."""

    accused: Accused
    row: Row


def verify_recording_refutation(file: RecordingRefutation) -> ShownRecording:
    """Check all that needs no program: signatures, ids, every entry's path, the committed tensor.

    Raises:
        RefusedError: naming the check that failed.
        FormatError: an envelope holds another statement than its place needs.
    """
    accused, step = verify_signed(file.signed), verify_step(file.signed.step)
    said = accused.recording
    program = program_id(file.signature, file.artifact)
    hold(program == said.program, "program", "the program is not the one recorded")
    root = bytes.fromhex(said.root)
    hold(len(file.entries) > 0, "entries", "there are none")
    for placed in file.entries:
        hold(placed.index < said.count, "path", "an entry lies outside the recording")
        verify_inclusion(placed.index, said.count, placed.entry.leaf(), placed.path, root)
    _check_committed(file, step)
    return ShownRecording(accused, step.row)


def _check_committed(file: RecordingRefutation, step: AccusedStep) -> None:
    row, alg, committed = step.row, step.genesis.alg, file.committed
    if file.kind == "end":
        hold(committed is not None, "committed", "the committed gradient is missing")
    if committed is None:
        hold(file.before is None, "before", "belongs to a committed tensor")
        return
    if file.kind == "end":
        hold(file.before is None, "before", "is no part of a gradient")
        found = committed.root(step=row.step, alg=alg).hex()
        hold(found == row.gradient_root, "committed", "does not lead to the gradient root")
        return
    wanted = step.genesis.state_root
    hold((file.before is None) == (row.step == 1), "before", "step 1 follows genesis, others a row")
    if file.before is not None:
        hold(file.before.hash().hex() == row.prev, "before", "is not the row that this one follows")
        hold(file.before.state_root is not None, "before", "commits no state")
        wanted = cast(str, file.before.state_root)
    found = committed.root(step=row.step - 1, alg=alg).hex()
    hold(found == wanted, "committed", "does not lead to the state root")


def _placed(value: JSON) -> PlacedEntry:
    if not isinstance(value, dict) or value.keys() != {"entry", "index", "path"}:
        raise FormatError("refutation: entries hold no entry", code="fields")
    return PlacedEntry(
        entry=load_entry(value["entry"]),
        index=read_count(value["index"], "index"),
        path=read_hashes(value["path"], "path", longest=_MAX_PATH),
    )
