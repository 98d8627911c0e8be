"""Read a pytree into tensors and nodes."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import jax
import numpy as np
from jax.core import Tracer
from numpy.typing import NDArray

from anh_jax.errors import AnhError
from attest.digest_tree import NodeType, Path, encode_path, path_text
from attest.tensor_header import TensorHeader, TensorKind, tensor_header

Array: TypeAlias = "jax.Array | NDArray"


@dataclass(frozen=True, slots=True)
class Leaf:
    """Join a tensor's header and its encoded path and header to the array itself."""

    header: TensorHeader
    path_bytes: bytes
    header_bytes: bytes
    value: Array


@dataclass(frozen=True, slots=True)
class TensorTree:
    """Hold the tensors of a pytree sorted by path bytes, and every node's path and type."""

    leaves: tuple[Leaf, ...]
    nodes: tuple[tuple[bytes, NodeType], ...]


@dataclass(frozen=True, slots=True)
class _Described:
    header: TensorHeader
    path_bytes: bytes
    header_bytes: bytes


def read_tree(tree: object) -> TensorTree:
    """Read nested dicts, lists, tuples and None with arrays or typed PRNG keys at the leaves.

    Raises:
        AnhError: for any other node or leaf, a weakly typed or deleted array, a tree of no tensors.
    """
    leaves: list[Leaf] = []
    nodes: list[tuple[bytes, NodeType]] = []
    for path, node in _walk(tree, ()):
        kind = _node_type(node)
        if kind is not NodeType.TENSOR:
            nodes.append((encode_path(path), kind))
            continue
        leaf = _leaf(path, node)
        leaves.append(leaf)
        nodes.append((leaf.path_bytes, kind))
    if not leaves:
        raise AnhError("digest: the tree holds no tensor; give it at least one array")
    leaves.sort(key=lambda leaf: leaf.path_bytes)
    return TensorTree(tuple(leaves), tuple(nodes))


def _walk(node: object, path: Path) -> Iterator[tuple[Path, object]]:
    yield path, node
    if isinstance(node, dict):
        for key, child in cast("dict[object, object]", node).items():
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise AnhError(
                    f"digest: {path_text(path)}: dict key {key!r} is neither text nor an index"
                )
            yield from _walk(child, (*path, key))
    elif _node_type(node) is NodeType.SEQUENCE:
        for index, child in enumerate(cast("Sequence[object]", node)):
            yield from _walk(child, (*path, index))


def _node_type(node: object) -> NodeType:
    if isinstance(node, dict):
        return NodeType.DICT
    if node is None:
        return NodeType.NONE
    # A named tuple's fields are names, which its positions would lose: it is refused as a leaf.
    if isinstance(node, list | tuple) and not hasattr(node, "_fields"):
        return NodeType.SEQUENCE
    return NodeType.TENSOR


def _leaf(path: Path, value: object) -> Leaf:
    if isinstance(value, Tracer):
        raise AnhError(f"digest: {path_text(path)}: traced value; digest outside jit")
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, jax.Array):
        return _jax_leaf(path, value)
    if not isinstance(value, np.ndarray):
        raise AnhError(
            f"digest: {path_text(path)}: {type(value).__name__} is not an array; "
            "use dicts of arrays with a declared dtype"
        )
    return _described_leaf(path, value, TensorKind.ARRAY, "")


def _jax_leaf(path: Path, value: jax.Array) -> Leaf:
    if value.is_deleted():
        raise AnhError(
            f"digest: {path_text(path)}: buffer was donated or deleted; "
            "digest before the step that donates it"
        )
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        implementation = jax.random.key_impl(value)
        words = jax.random.key_data(value)
        return _described_leaf(path, words, TensorKind.KEY, cast(str, implementation))
    if value.weak_type:
        raise AnhError(
            f"digest: {path_text(path)}: weakly typed {value.dtype}; give the array a dtype"
        )
    return _described_leaf(path, value, TensorKind.ARRAY, "")


def _described_leaf(path: Path, value: Array, kind: TensorKind, implementation: str) -> Leaf:
    found = _describe(path, value.dtype.name, value.shape, kind, str(implementation))
    return Leaf(found.header, found.path_bytes, found.header_bytes, value)


@functools.lru_cache(maxsize=1 << 16)  # the same tensors come back at every step
def _describe(
    path: Path, dtype: str, dims: tuple[int, ...], kind: TensorKind, implementation: str
) -> _Described:
    header = tensor_header(path, dtype, dims, kind=kind, implementation=implementation)
    return _Described(header, encode_path(path), header.to_bytes())
