"""Makes the files that refute a recording, from its entries and what the run commits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from anh_jax.audit.operator import Committed, end_distance
from anh_jax.audit.recording import FolderRecording, array_of, value_of
from anh_jax.audit.recording_refutation import misplaced
from anh_jax.audit.wiring import Argument, Known, Result, Wired, Wiring, wiring
from anh_jax.digest.compose import TreeDigest
from anh_jax.digest.hashes import level_hash
from anh_jax.digest.host import gradient_digest, tree_digest
from anh_jax.digest.opening import tile_root
from anh_jax.errors import AnhError
from anh_jax.program.interpret import read_stored
from anh_jax.program.signature import StoredProgram
from anh_jax.program.tree import Path, leaves_of
from anh_jax.training.state import State
from attest.digest_tree import set_siblings
from attest.recording import Value
from attest.recording_refutation import CommittedTensor, PlacedEntry, RecordingRefutation
from attest.refutation import Signed
from attest.signed_step import statement_of
from attest.statements import Genesis, Row
from attest.tensor_header import TensorHeader


@dataclass(frozen=True)
class Questioned:
    """A recording and what it is held to: the signed envelopes, the program, the committed state.

    `previous` is the row before the recorded step, None for step 1; `before` the state it commits.
    """

    signed: Signed
    stored: StoredProgram
    recording: FolderRecording
    previous: Row | None
    before: State


def refute_wiring(asked: Questioned) -> RecordingRefutation | None:
    """Return the file of the first entry that contradicts; None where the stored bytes tell none.

    Raises ProgramError where the program's order cannot be followed.
    """
    wired = wiring(read_stored(asked.stored))
    return next(_contradictions(asked, wired), None)


def refute_end(asked: Questioned, committed: Committed) -> RecordingRefutation | None:
    """Return the file that shows a recording to end elsewhere; None where each tensor is within.

    Raises AnhError where the values that it ends in are not beside the recording.
    """
    wired, recording = wiring(read_stored(asked.stored)), asked.recording
    outputs: Any = committed.outputs
    theirs = leaves_of({name: outputs[name] for name in ("gradient", "statistics")})
    size = len(wired.operators)
    for path, source in _ends(asked.stored, wired):
        if not isinstance(source, Result) or not committed.weighs(path):
            continue
        indices = range(source.index, len(recording.entries), size)
        values = tuple(_shown(recording, index, source.place) for index in indices)
        total = array_of(values[0])
        for value in values[1:]:
            total = total + array_of(value)
        own = np.asarray(theirs[path])
        if end_distance({path: own}, {path: total}, committed.tolerance).accepted:
            continue
        tree = {name: outputs[name] for name in ("gradient", "statistics")}
        digest = gradient_digest(tree, step=committed.step, alg=committed.alg)
        return _file(
            asked,
            "end",
            *indices,
            committed=committed_tensor(tree, digest, path),
            values=(*values, value_of(own)),
        )
    return None


def committed_tensor(tree: Any, digest: TreeDigest, path: Path) -> CommittedTensor:
    """Return what leads from one whole tensor of a tree to the tree's root."""
    place = next(i for i, tensor in enumerate(digest.tensors) if tensor.path == path)
    roots = [tensor.root for tensor in digest.tensors]
    return CommittedTensor(
        header=TensorHeader.from_bytes(digest.tensors[place].header),
        top=tile_root(tree, path=path, alg=digest.alg),
        set_index=place,
        set_siblings=set_siblings(level_hash(digest.alg), roots, place),
        tensors=len(roots),
        structure=digest.structure,
    )


def _contradictions(asked: Questioned, wired: Wiring) -> Iterator[RecordingRefutation]:
    entries, size = asked.recording.entries, len(wired.operators)
    if len(entries) % size:
        yield _file(asked, "order", len(entries) - 1)
    arguments = _arguments(asked)
    for index, entry in enumerate(entries):
        expected: Wired = wired.operators[index % size]
        if misplaced(expected, entry, index // size):
            yield _file(asked, "order", index)
            return
        for operand, source in enumerate(expected.operands):
            digest = entry.inputs[operand]
            match source:
                case Result(feeding, place):
                    other = index // size * size + feeding
                    if entries[other].outputs[place] != digest:
                        yield _file(asked, "operand", index, other, operand=operand)
                case Known(value):
                    if value != digest:
                        yield _file(asked, "operand", index, operand=operand)
                case Argument(place) if place in arguments:
                    if arguments[place].digest() != digest:
                        yield _argument_file(asked, index, operand, place)
                case _:
                    pass


def _argument_file(asked: Questioned, index: int, operand: int, place: int) -> RecordingRefutation:
    step = asked.recording.said.step - 1
    path = _state_path(asked.stored, place)
    digest = tree_digest(asked.before, step=step, alg=_alg(asked))
    return _file(
        asked,
        "operand",
        index,
        operand=operand,
        before=asked.previous,
        committed=committed_tensor(asked.before, digest, path),
        values=(_arguments(asked)[place],),
    )


def _arguments(asked: Questioned) -> Mapping[int, Value]:
    """Return the committed values of the program's arguments that are tensors of the state."""
    leaves = leaves_of(asked.before)
    found: dict[int, Value] = {}
    for place, leaf in enumerate(asked.stored.signature.inputs):
        if leaf.path[0] in ("state", "key"):
            array = leaves[_state_path(asked.stored, place)]
            if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
                array = jax.random.key_data(array)
            found[place] = value_of(array)
    return found


def _state_path(stored: StoredProgram, place: int) -> Path:
    path = stored.signature.inputs[place].path
    return path[1:] if path[0] == "state" else path


def _alg(asked: Questioned) -> str:
    return statement_of(asked.signed.genesis, Genesis).alg


def _ends(stored: StoredProgram, wired: Wiring) -> Iterator[tuple[Path, Any]]:
    for leaf, source in zip(stored.signature.outputs, wired.results, strict=True):
        if leaf.path[0] in ("gradient", "statistics"):
            yield leaf.path, source


def _shown(recording: FolderRecording, index: int, place: int) -> Value:
    entry = recording.entries[index]
    value = recording.value(entry.outputs[place])
    if value is None:
        raise AnhError(
            f"{entry.text}: its results are not shown; record with --show '{entry.name}'"
        )
    return value


def _file(asked: Questioned, kind: str, *indices: int, **parts: Any) -> RecordingRefutation:
    recording = asked.recording
    placed = tuple(PlacedEntry(recording.entries[i], i, recording.path(i)) for i in indices)
    return RecordingRefutation(
        signed=asked.signed,
        signature=asked.stored.signature.to_bytes(),
        artifact=asked.stored.artifact,
        kind=kind,
        entries=placed,
        **parts,
    )
