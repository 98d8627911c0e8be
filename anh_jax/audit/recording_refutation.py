"""Judges a refutation of a recording: by the wiring of its program, or by where it ends.

The program is traced, never run: which operator feeds which follows from its stored bytes. At an
end the recorded sums are added up and held to the committed gradient (`docs/dispute.md`).
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from anh_jax.audit.operator import end_distance, end_tolerance
from anh_jax.audit.recording import array_of
from anh_jax.audit.stranger_program import stranger_program
from anh_jax.audit.wiring import Argument, Known, Result, Wired, Wiring, wiring
from anh_jax.digest.hashes import level_hash
from anh_jax.digest.host import tree_digest
from anh_jax.errors import ProgramError
from anh_jax.program.interpret import read_stored
from anh_jax.program.signature import ProgramSignature
from anh_jax.program.tree import from_leaves
from attest.canonical import parse_hex_float
from attest.digest_tree import DigestLevel, path_text, tensor_bytes
from attest.file_fields import hold
from attest.recording import Entry, Value
from attest.recording_refutation import (
    CommittedTensor,
    PlacedEntry,
    RecordingRefutation,
    ShownRecording,
    verify_recording_refutation,
)
from attest.tensor_header import TensorKind


@dataclass(frozen=True)
class JudgedRecording:
    """What judging a file gave: refuted or not, and why."""

    shown: ShownRecording
    refuted: bool
    words: str


@dataclass(frozen=True)
class _Program:
    signature: ProgramSignature
    wiring: Wiring

    def wired(self, placed: PlacedEntry) -> Wired:
        return self.wiring.operators[placed.index % len(self.wiring.operators)]

    def piece(self, placed: PlacedEntry) -> int:
        return placed.index // len(self.wiring.operators)


def judge_recording(file: RecordingRefutation) -> JudgedRecording:
    """Check a refutation of a recording and hold it to its program.

    Raises RefusedError where a signature, a path or an entry's place does not hold, FormatError or
    ProgramError where a part is none, or the program's order cannot be followed.
    """
    shown = verify_recording_refutation(file)
    stored = stranger_program(file.signature, file.artifact)
    try:
        program = _Program(stored.signature, wiring(read_stored(stored)))
        match file.kind:
            case "order":
                words = _order(program, file, shown)
            case "operand":
                words = _operand(program, file, shown)
            case _:
                words = _end(program, file, shown)
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as e:
        raise ProgramError(f"recording: cannot be followed ({type(e).__name__})") from e
    return JudgedRecording(shown, bool(words), words or "the recording is as its program says")


def misplaced(wired: Wired, entry: Entry, piece: int) -> str:
    """Say how an entry is not the operator that the program evaluates there; empty if it is."""
    found = (entry.piece, entry.name, entry.iterations)
    if found != (piece, wired.name, wired.iterations):
        return f"holds {entry.text}, where the program evaluates {wired.name}"
    if (len(entry.inputs), len(entry.outputs)) != (len(wired.operands), wired.outputs):
        return f"{entry.text}: has not as many operands and results as its operator"
    return ""


def _order(program: _Program, file: RecordingRefutation, shown: ShownRecording) -> str:
    count, size = shown.accused.recording.count, len(program.wiring.operators)
    if count % size:
        return f"its {count:,} entries are no evaluations of {size:,} operators"
    hold(len(file.entries) == 1, "entries", "there is more than one")
    (placed,) = file.entries
    found = misplaced(program.wired(placed), placed.entry, program.piece(placed))
    return found and f"entry {placed.index} {found}"


def _in_place(program: _Program, placed: PlacedEntry) -> None:
    odd = misplaced(program.wired(placed), placed.entry, program.piece(placed))
    hold(not odd, "entries", f"entry {placed.index} {odd}")


def _operand(program: _Program, file: RecordingRefutation, shown: ShownRecording) -> str:
    consumer, *others = file.entries
    _in_place(program, consumer)
    wired, entry = program.wired(consumer), consumer.entry
    hold(file.operand < len(wired.operands), "operand", "the operator has not as many")
    digest = entry.inputs[file.operand]
    what = f"{entry.text}: operand {file.operand}"
    match wired.operands[file.operand]:
        case Result(index, place):
            hold(len(others) == 1 and file.committed is None, "entries", "must be two")
            (producer,) = others
            first = program.piece(consumer) * len(program.wiring.operators)
            hold(producer.index == first + index, "entries", "the second does not feed the first")
            _in_place(program, producer)
            other = producer.entry.outputs[place]
            return f"{what} is not the result of {producer.entry.text}" if digest != other else ""
        case Known(other):
            hold(not others and file.committed is None, "entries", "must be one")
            return f"{what} is not the value that the program gives" if digest != other else ""
        case Argument(place):
            hold(not others, "entries", "must be one")
            hold(len(file.values) == 1, "values", "must be one")
            (value,) = file.values
            path = program.signature.inputs[place].path
            wanted = path[1:] if path[0] == "state" else path
            hold(path[0] in ("state", "key"), "operand", "is no tensor of the state")
            _check_tensor(file.committed, value, wanted, shown)
            return f"{what} is not the committed {path_text(wanted)}" * (digest != value.digest())
        case None:
            hold(False, "operand", "the program's bytes alone do not say what it is")
            return ""


def _end(program: _Program, file: RecordingRefutation, shown: ShownRecording) -> str:
    said, contract = shown.accused.recording, file.signed.contract
    hold(said.program == contract.programs.gradient, "program", "does not end in a gradient")
    size = len(program.wiring.operators)
    pieces, left = divmod(said.count, size)
    hold(left == 0 and len(file.entries) == pieces, "entries", "must be one for each microbatch")
    hold(len(file.values) == pieces + 1, "values", "must be one for each entry, and the committed")
    committed = file.committed
    hold(committed is not None, "committed", "the committed gradient is missing")
    assert committed is not None
    path = committed.header.path
    null = path[0] == "gradient" and path_text(path[1:]) in contract.numerics.null_gradients
    hold(not null, "committed", "is a gradient of zero by the contract: all of it is rounding")
    source = program.wiring.results[_output(program.signature, path)]
    hold(isinstance(source, Result), "entries", "no operator gives this tensor")
    assert isinstance(source, Result)
    total: Any = None
    for piece, (placed, value) in enumerate(zip(file.entries, file.values[:-1], strict=True)):
        hold(placed.index == piece * size + source.index, "entries", "do not give this tensor")
        _in_place(program, placed)
        hold(value.digest() == placed.entry.outputs[source.place], "values", "are not the results")
        total = array_of(value) if total is None else total + array_of(value)
    _check_tensor(committed, file.values[-1], path, shown)
    bound = shown.row.bound
    tolerance = end_tolerance(
        contract.numerics.rules, None if bound is None else parse_hex_float(bound)
    )
    name: Any = path
    found = end_distance({name: array_of(file.values[-1])}, {name: total}, tolerance)
    if found.accepted:
        return ""
    return (
        f"it ends in another gradient than the row commits: {found.where} is {found.value:.3g} "
        f"times the tolerance of {tolerance:.2g} away"
    )


def _output(signature: ProgramSignature, path: tuple[str | int, ...]) -> int:
    paths = [leaf.path for leaf in signature.outputs]
    hold(path in paths and path[0] in ("gradient", "statistics"), "committed", "is no gradient")
    return next(i for i, own in enumerate(paths) if own == path)


def _check_tensor(
    committed: CommittedTensor | None,
    value: Value,
    path: tuple[str | int, ...],
    shown: ShownRecording,
) -> None:
    """Refuse a value that is not the committed tensor of a path."""
    hold(committed is not None, "committed", "the committed tensor is missing")
    assert committed is not None
    header = committed.header
    hold(header.path == path, "committed", f"is not {path_text(path)}")
    hold((header.dtype, header.dims) == (value.dtype, value.dims), "values", "of another form")
    leaf: Any = np.array(array_of(value))
    if header.kind is TensorKind.KEY:
        leaf = jax.random.wrap_key_data(leaf, impl=header.implementation)
    alg = shown.accused.genesis.alg
    hash_level = level_hash(alg)
    names: Any = header.path
    ((found),) = tree_digest(from_leaves({names: leaf}), step=0, alg=alg).tensors
    wanted = hash_level(DigestLevel.TENSOR, tensor_bytes(header.to_bytes(), committed.top))
    hold(found.root == wanted, "values", "are not the committed tensor")
