"""What an own loop keeps for auditors: the gradient and the state of every step it took.

Nobody else runs such a loop, so nobody else can make these again. One safetensors file a step,
`<step>.safetensors`, holds all leaves by path: `outputs/gradient/...`, `outputs/statistics/...` and
`state/...`, a key as its words. Nothing here vouches for the bytes: whoever reads a file compares
its digests with the signed row of its step.
"""

import math
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from anh_jax.errors import AnhError
from anh_jax.program.tree import Path, Tree, empty_nodes, from_leaves, leaves_of, path_text
from anh_jax.run_directory import write_atomically
from anh_jax.training.state import State

# The fact of genesis that says in words what an own loop keeps.
RETENTION_FACT = "retained"

_SUFFIX = ".safetensors"
_OUTPUTS = ("gradient", "statistics")


class RetainedSteps:
    """The retained steps of one run directory.

    `limit` bounds the bytes on disk: the oldest steps go first, the newest one always stays. None
    keeps all of them.
    """

    def __init__(self, folder: FilePath, *, limit: int | None = None) -> None:
        self._folder = folder
        self._limit = limit
        self._sizes: dict[int, int] = {}

    @property
    def rule(self) -> str:
        """Return in words what is kept, for genesis."""
        if self._limit is None:
            return "every step"
        return f"the newest steps within {self._limit} bytes"

    def save(self, step: int, outputs: Mapping[str, Any], state: State) -> None:
        """Keep what a step gave, durably, before its buffers may be reused.

        Raises AnhError where the folder cannot be written or is full.
        """
        self._folder.mkdir(exist_ok=True)
        kept = {"outputs": {name: outputs[name] for name in _OUTPUTS}, "state": state}
        self._sizes[step] = self._write(step, kept)
        while self._limit is not None and sum(self._sizes.values()) > self._limit:
            oldest = min(self._sizes)
            if oldest == step:
                break
            self.path(oldest).unlink(missing_ok=True)
            del self._sizes[oldest]

    def save_state(self, step: int, state: State) -> None:
        """Keep a state alone, unless the step lies here already: its file may hold more.

        Raises AnhError where the folder cannot be written or is full.
        """
        self._folder.mkdir(exist_ok=True)
        if not self.path(step).is_file():
            self._write(step, {"state": state})

    def path(self, step: int) -> FilePath:
        """Return where a step lies, or would lie."""
        return self._folder / f"{step}{_SUFFIX}"

    def steps(self) -> tuple[int, ...]:
        """Return the steps that are retained, ascending."""
        if not self._folder.is_dir():
            return ()
        names = (path.stem for path in self._folder.glob(f"*{_SUFFIX}"))
        return tuple(sorted(int(name) for name in names if name.isdecimal()))

    def state(self, step: int, abstract: Tree) -> State:
        """Read the state after a step into the shapes, dtypes and shardings of `abstract`.

        Raises AnhError where the file cannot be read or does not fit.
        """
        return self._read(step, "state", abstract)

    def outputs(self, step: int, abstract: Tree) -> Tree:
        """Read `gradient` and `statistics` of a step into the shapes and dtypes of `abstract`.

        Raises AnhError where the file cannot be read or does not fit.
        """
        return self._read(step, "outputs", {name: abstract[name] for name in _OUTPUTS})

    def _write(self, step: int, kept: Mapping[str, Any]) -> int:
        """Write a step's file and return its size in bytes."""
        data = safetensors.numpy.save(
            {path_text(path): _words(leaf) for path, leaf in leaves_of(kept).items()}
        )
        write_atomically(self.path(step), data)
        return len(data)

    def _read(self, step: int, part: str, abstract: Tree) -> Tree:
        path = self.path(step)
        try:
            held = dict(safetensors.deserialize(path.read_bytes()))
        except (OSError, safetensors.SafetensorError) as error:
            words = str(error).splitlines()[0][:200]
            raise AnhError(f"{path}: cannot be read ({words}); restore the file") from error

        def leaf(at: Path, shape: jax.ShapeDtypeStruct) -> jax.Array:
            name, plain = f"{part}/{path_text(at)}", _plain(shape)
            found = held.get(name, {"shape": None, "data": b""})
            size = math.prod(plain.shape) * plain.dtype.itemsize
            if found["shape"] != list(plain.shape) or len(found["data"]) != size:
                raise AnhError(f"{path}: holds no {name} of this contract; restore the file")
            words = np.frombuffer(found["data"], plain.dtype).reshape(plain.shape)
            value = jax.device_put(words, shape.sharding)
            return jax.random.wrap_key_data(value) if _is_key(shape) else value

        leaves = {at: leaf(at, shape) for at, shape in leaves_of(abstract).items()}
        return from_leaves(leaves, empty_nodes(abstract))


def _words(leaf: Any) -> np.ndarray:
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf, order="C")


def _plain(shape: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.eval_shape(jax.random.key_data, shape) if _is_key(shape) else shape


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
