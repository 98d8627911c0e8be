"""What commits a set of examples: a leaf hash for each, and RFC 6962 roots over them.

The data root is the root over all examples of a set in their own order; the batch root of a step
is the root over the leaf hashes of its examples in the step's order. Any host can therefore
compute any step's batch root from the leaf hashes alone, whatever part of the data it holds.
A row that pads a batch has the leaf `"anh v1 padding" || 0x00`, which is no example's bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from anh_jax.data.examples import (
    MAX_EXAMPLES,
    Examples,
    checked_examples,
    example_count,
    iter_example_bytes,
)
from anh_jax.errors import DataError
from anh_jax.run_directory import write_atomically
from attest import merkle

Indices = Sequence[int] | Int64[np.ndarray, " batch_size"]

PADDING = -1
PADDING_LEAF = merkle.leaf_hash(b"anh v1 padding\x00")

_PROGRESS_EVERY = 4096

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """The leaf hashes of a set's examples, uint8[n, 32], and the RFC 6962 root over them."""

    leaf_hashes: UInt8[np.ndarray, "n 32"]
    root: bytes

    def __len__(self) -> int:
        return len(self.leaf_hashes)

    def leaf(self, index: int) -> bytes:
        """Return the leaf hash of one example; raises DataError where there is none."""
        if not 0 <= index < len(self):
            raise DataError(f"example {index}: the set holds examples 0 to {len(self) - 1}")
        return self.leaf_hashes[index].tobytes()


def build_manifest(
    arrays: Examples, *, where: str = "data", progress: Progress | None = None
) -> Manifest:
    """Hash every example of a set; `progress` is called with (examples done, examples in all).

    Raises DataError naming `where` for arrays that are no examples.
    """
    checked = checked_examples(arrays, where=where)
    total = example_count(checked)
    hashes = bytearray()
    for index, data in enumerate(iter_example_bytes(checked)):
        hashes += merkle.leaf_hash(data)
        if progress is not None and (index + 1) % _PROGRESS_EVERY == 0:
            progress(index + 1, total)
    if progress is not None and total % _PROGRESS_EVERY:
        progress(total, total)
    return _from_hashes(bytes(hashes))


def save_manifest(manifest: Manifest, path: Path) -> None:
    """Keep the leaf hashes in a file: 32 bytes for each example, in order, nothing else."""
    write_atomically(path, manifest.leaf_hashes.tobytes())


def load_manifest(path: Path, *, root: bytes) -> Manifest:
    """Read leaf hashes kept by `save_manifest` and check that they lead to `root`.

    Raises DataError for a missing, damaged or foreign file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); delete it to hash again"
        ) from error
    if len(data) % merkle.HASH_BYTES or len(data) // merkle.HASH_BYTES > MAX_EXAMPLES:
        raise DataError(f"{path}: {len(data)} bytes are no leaf hashes; delete it to hash again")
    manifest = _from_hashes(data)
    if manifest.root != root:
        raise DataError(
            f"{path}: root {manifest.root.hex()} is not the data root {root.hex()}; "
            "delete the file to hash the examples again"
        )
    return manifest


def batch_root(leaf_hashes: UInt8[np.ndarray, "n 32"], indices: Indices) -> bytes:
    """Return the RFC 6962 root over the leaf hashes of a step's examples, in order.

    `leaf_hashes` is uint8[n, 32]; an index of -1 marks a row of padding. Raises DataError for any
    other index outside [0, n).
    """
    return merkle.tree_root(batch_leaves(leaf_hashes, indices))


def batch_leaves(leaf_hashes: UInt8[np.ndarray, "n 32"], indices: Indices) -> list[bytes]:
    """Return the leaves of a batch's tree: a leaf hash per row, or the padding leaf."""
    rows = np.asarray(indices, dtype=np.int64)
    if rows.size and (rows.min() < PADDING or rows.max() >= len(leaf_hashes)):
        raise DataError(
            f"batch of examples {rows.min()} to {rows.max()}: the set holds examples "
            f"0 to {len(leaf_hashes) - 1}"
        )
    return [
        PADDING_LEAF if index == PADDING else leaf_hashes[index].tobytes()
        for index in rows.tolist()
    ]


def _from_hashes(data: bytes) -> Manifest:
    hashes = np.frombuffer(data, dtype=np.uint8).reshape(-1, merkle.HASH_BYTES)
    return Manifest(leaf_hashes=hashes, root=merkle.tree_root([row.tobytes() for row in hashes]))
