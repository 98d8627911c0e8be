"""Records a step operator by operator, and reads such a recording: two parties' common language.

A recording is made one operator at a time, each compiled alone: a compiler that sees several fuses
them, and what then stands between two operators is no value that anybody can name. So its end is
the committed gradient up to rounding, not bit for bit. Values are hashed and let go; they are kept
beside only up to a limit, and made again on request, for the evaluation repeats itself.

    recording.json   the envelope that the run key signed
    entries.jsonl    one entry a line, in order of execution
    values.zip       values by digest
"""

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from anh_jax.bounds.update_stage import UpdateInputs
from anh_jax.errors import AnhError
from anh_jax.program.interpret import Hook, InterpretedProgram, Visit
from anh_jax.program.tree import Tree
from anh_jax.run_directory import write_atomically
from anh_jax.training.state import gradient_part
from attest.envelope import Envelope, sign
from attest.errors import AttestError
from attest.keys import PrivateKey
from attest.merkle import inclusion_path, tree_root
from attest.recording import Entry, Recording, Value, value_digest

Array = NDArray[Any]
VALUES_LIMIT = 256 << 20
"""Bytes of values that a recording keeps beside it unless it is told otherwise."""


def value_of(array: Any) -> Value:
    """Return an array as operators exchange it."""
    host = np.ascontiguousarray(np.asarray(array))
    return Value(host.dtype.name, tuple(np.shape(array)), host.tobytes())


def array_of(value: Value) -> Array:
    """Return the array that a value holds."""
    return np.frombuffer(value.data, jax.numpy.dtype(value.dtype)).reshape(value.dims)


def iterations_of(visit: Visit) -> tuple[int, ...]:
    """Return the iterations of the loops around an operator as plain numbers."""
    return tuple(int(count) for count in visit.iterations)


@dataclass(frozen=True)
class StepInputs:
    """What a program takes at one step: its trees for each microbatch, on one device.

    Of an update there is one piece.
    """

    pieces: tuple[tuple[Tree, ...], ...]


def gradient_inputs(state: Tree, pieces: Sequence[Mapping[str, Any]]) -> StepInputs:
    """Return what the gradient program takes for each microbatch of a step."""
    seen, key = _here(gradient_part(state)), _here(state["key"])
    return StepInputs(tuple((seen, _here(dict(piece)), key) for piece in pieces))


def update_program_inputs(inputs: UpdateInputs, step: int, names: Sequence[str]) -> StepInputs:
    """Return what the update program takes of committed inputs; `names` are its constants'."""
    state = {name: inputs.before[name] for name in ("parameters", "optimizer")}
    state["step"] = np.uint32(step - 1)
    scalars = {
        "globalNorm": np.float32(inputs.global_norm),
        "finite": np.uint32(inputs.finite),
        "weight": np.float32(inputs.weight),
    }
    constants = np.array([inputs.constants[name] for name in names], np.float32)
    trees = (state, inputs.gradient, scalars, constants)
    return StepInputs((tuple(jax.tree.map(jax.numpy.asarray, _here(tree)) for tree in trees),))


def _here(tree: Tree) -> Tree:
    device = jax.local_devices()[0]
    return jax.tree.map(lambda leaf: _on(leaf, device), tree)


def added(outputs: Sequence[Tree]) -> Tree:
    """Return the sums of the gradient program's outputs over microbatches, as the executor adds."""
    total = outputs[0]
    for more in outputs[1:]:
        total = jax.tree.map(jax.numpy.add, total, more)
    return total


class RecordingWriter:
    """Writes the recording of one program to a folder while it is evaluated.

    `wanted` names operators whose values are kept whatever the limit. Raises AnhError where the
    folder cannot be written.
    """

    def __init__(
        self, folder: Path, *, limit: int = VALUES_LIMIT, wanted: Iterable[str] = ()
    ) -> None:
        self._folder = folder
        self._limit = limit
        self._wanted = frozenset(wanted)
        self._kept: set[str] = set()
        self._bytes = 0
        self._leaves: list[bytes] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._entries = (folder / "entries.jsonl").open("wb")
            self._values = zipfile.ZipFile(folder / "values.zip", "w")
        except OSError as error:
            raise AnhError(f"{folder}: cannot be written ({error.strerror})") from error

    def close(self) -> None:
        """Close the folder's files."""
        self._entries.close()
        self._values.close()

    def __enter__(self) -> "RecordingWriter":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def add(self, entry: Entry, values: Mapping[str, bytes]) -> None:
        """Append an entry, and keep its values (by digest) within the limit."""
        self._leaves.append(entry.leaf())
        self._entries.write(entry.to_bytes() + b"\n")
        wanted = entry.name in self._wanted
        for digest, data in values.items():
            if digest in self._kept or not (wanted or self._bytes + len(data) <= self._limit):
                continue
            self._values.writestr(digest, data)
            self._kept.add(digest)
            self._bytes += 0 if wanted else len(data)

    def finish(self, key: PrivateKey, *, run: str, step: int, row: str, program: str) -> Recording:
        """Sign the root and write the envelope; the row and program are named by their hashes."""
        self.close()
        said = Recording(
            backend=jax.default_backend(),
            count=len(self._leaves),
            program=program,
            root=tree_root(self._leaves).hex(),
            row=row,
            run=run,
            step=step,
        )
        write_atomically(self._folder / "recording.json", sign(said.payload(), [key]).to_bytes())
        return said


def record(
    program: InterpretedProgram,
    inputs: StepInputs,
    writer: RecordingWriter,
    *,
    fault: Hook | None = None,
) -> Tree:
    """Evaluate a program operator by operator, write each entry, and return the summed outputs.

    `fault` stands in for a device that computes wrongly: it evaluates operators in its own way.
    """
    outputs: list[Tree] = []
    for piece, arguments in enumerate(inputs.pieces):
        hook = _writing(writer, piece, fault or _honest)
        outputs.append(program(*arguments, around=hook, loops="python"))
    return added(outputs)


class FolderRecording:
    """A recording as its folder holds it, checked against its own signed root.

    Raises AnhError where files are missing or are not what the envelope commits.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.envelope = Envelope.from_bytes((folder / "recording.json").read_bytes())
            self.said = Recording.from_envelope(self.envelope)
            lines = (folder / "entries.jsonl").read_bytes().splitlines()
            self.entries = tuple(Entry.from_bytes(line) for line in lines)
            self._values = zipfile.ZipFile(folder / "values.zip")
        except (OSError, AttestError, zipfile.BadZipFile) as error:
            raise AnhError(f"{folder}: is no recording: {error}") from error
        self._leaves = [entry.leaf() for entry in self.entries]
        root = tree_root(self._leaves).hex()
        if len(self._leaves) != self.said.count or root != self.said.root:
            raise AnhError(f"{folder}: its entries are not those that recording.json commits")

    def path(self, index: int) -> tuple[bytes, ...]:
        """Return the hashes that lead from an entry to the root."""
        return tuple(inclusion_path(index, len(self._leaves), self._leaves))

    def value(self, digest: str) -> Value | None:
        """Return a value that is kept here; None where it is not, or is another value."""
        try:
            data = self._values.read(digest)
        except (KeyError, zipfile.BadZipFile):
            return None
        return Value.from_bytes(data) if value_digest(data) == digest else None


def _writing(writer: RecordingWriter, piece: int, fault: Hook) -> Hook:
    def hook(
        visit: Visit,
        inputs: tuple[jax.Array, ...],
        default: Callable[..., tuple[jax.Array, ...]],
    ) -> tuple[jax.Array, ...]:
        outputs = fault(visit, inputs, default)
        sides = [[value_of(x).to_bytes() for x in side] for side in (inputs, outputs)]
        names = [[value_digest(data) for data in side] for side in sides]
        entry = Entry(
            piece=piece,
            name=visit.name,
            iterations=iterations_of(visit),
            inputs=tuple(names[0]),
            outputs=tuple(names[1]),
        )
        writer.add(entry, dict(zip(names[0] + names[1], sides[0] + sides[1], strict=True)))
        return outputs

    return hook


def _honest(
    visit: Visit, inputs: tuple[jax.Array, ...], default: Callable[..., tuple[jax.Array, ...]]
) -> tuple[jax.Array, ...]:
    return default(*inputs)


def _on(leaf: Any, device: Any) -> Any:
    if isinstance(leaf, jax.Array) and len(leaf.devices()) > 1:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = np.asarray(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(jax.device_put(words, device))
        return jax.device_put(np.asarray(leaf), device)
    return leaf
