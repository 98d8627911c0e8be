"""The roots over examples: golden vectors, the kept file, and what each root depends on."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from anh_jax.data.examples import example_bytes
from anh_jax.data.manifest import (
    PADDING,
    PADDING_LEAF,
    batch_root,
    build_manifest,
    load_manifest,
    save_manifest,
)
from anh_jax.errors import DataError
from attest import merkle

Arrays = dict[str, np.ndarray]


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def test_golden_root_of_three_examples() -> None:
    manifest = build_manifest({"x": np.array([1, 2, 3], dtype=np.uint8)})
    head = (
        b"anh v1 example\x00\x01\x00\x00\x00\x01\x00\x00\x00x\x05\x00\x00\x00uint8\x00\x00\x00\x00"
    )
    leaves = [sha256(b"\x00", head, bytes([value])) for value in (1, 2, 3)]
    assert [row.tobytes() for row in manifest.leaf_hashes] == leaves
    root = sha256(b"\x01", sha256(b"\x01", leaves[0], leaves[1]), leaves[2])
    assert manifest.root == root
    assert root.hex() == "64d184835de22ca2e70575bbc598259011a719364d06925ffcb449a5633aa9e7"


def test_batch_root_is_over_the_leaf_hashes_in_the_order_of_the_step(arrays: Arrays) -> None:
    manifest = build_manifest(arrays)
    leaves = [manifest.leaf(index) for index in (5, 0, 36)]
    assert batch_root(manifest.leaf_hashes, [5, 0, 36]) == merkle.tree_root(leaves)
    assert batch_root(manifest.leaf_hashes, [0, 5, 36]) != merkle.tree_root(leaves)


def test_padding_is_marked_and_is_no_example(arrays: Arrays) -> None:
    manifest = build_manifest(arrays)
    assert sha256(b"\x00anh v1 padding\x00") == PADDING_LEAF
    root = batch_root(manifest.leaf_hashes, [5, PADDING])
    assert root == merkle.node_hash(manifest.leaf(5), PADDING_LEAF)
    zeros = {name: np.zeros(array.shape[1:], array.dtype) for name, array in arrays.items()}
    assert merkle.leaf_hash(example_bytes(zeros)) != PADDING_LEAF


@pytest.mark.parametrize("index", [-2, 37])
def test_batch_of_an_example_that_is_not_there_is_refused(arrays: Arrays, index: int) -> None:
    manifest = build_manifest(arrays)
    with pytest.raises(DataError, match="holds examples 0 to 36"):
        batch_root(manifest.leaf_hashes, [0, index])


def test_one_bit_of_any_example_changes_the_root(arrays: Arrays) -> None:
    root = build_manifest(arrays).root
    for index in (0, 17, 36):
        changed = {name: array.copy() for name, array in arrays.items()}
        changed["image"].view(np.uint8)[index, 2, 3] ^= 1
        assert build_manifest(changed).root != root


def test_empty_hold_out_has_the_empty_root() -> None:
    manifest = build_manifest({"x": np.zeros((0, 2), dtype=np.float32)})
    assert (len(manifest), manifest.root) == (0, merkle.EMPTY_ROOT)


def test_kept_leaf_hashes_load_back_equal(arrays: Arrays, tmp_path: Path) -> None:
    manifest = build_manifest(arrays)
    save_manifest(manifest, tmp_path / "train.leaves")
    assert (tmp_path / "train.leaves").stat().st_size == 37 * 32
    again = load_manifest(tmp_path / "train.leaves", root=manifest.root)
    assert again.root == manifest.root
    assert np.array_equal(again.leaf_hashes, manifest.leaf_hashes)


def test_damaged_or_foreign_leaf_hashes_are_refused(arrays: Arrays, tmp_path: Path) -> None:
    path, root = tmp_path / "train.leaves", build_manifest(arrays).root
    with pytest.raises(DataError, match="cannot be read"):
        load_manifest(path, root=root)
    save_manifest(build_manifest(arrays), path)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[:-1])
    with pytest.raises(DataError, match="1183 bytes are no leaf hashes"):
        load_manifest(path, root=root)
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="is not the data root"):
        load_manifest(path, root=root)


def test_progress_ends_with_all_examples() -> None:
    seen: list[tuple[int, int]] = []
    values = np.zeros(10_000, dtype=np.uint8)
    build_manifest({"x": values}, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4096, 10_000), (8192, 10_000), (10_000, 10_000)]
    seen.clear()
    build_manifest({"x": values[:4096]}, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4096, 4096)]
