"""Static log files: the specification's paths and sizes, and proofs that equal the tree's own."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest import merkle
from attest.errors import AttestError, FormatError, InputError
from attest.merkle import LeafRange
from attest.tile_files import TileDirectory
from attest.tiles import (
    TileBuilder,
    TileFile,
    TileTree,
    bundle_path,
    decode_bundle,
    encode_bundle,
    tile_path,
)


def leaf(index: int) -> bytes:
    return b"leaf %d" % index


def build(size: int) -> dict[str, bytes]:
    builder, files = TileBuilder(), dict[str, bytes]()
    for index in range(size):
        files |= {file.path: file.data for file in builder.add(leaf(index))}
    return files | {file.path: file.data for file in builder.open_files()}


def reader(files: dict[str, bytes]):
    def read(path: str) -> bytes:
        if path not in files:
            raise InputError(f"no {path}")
        return files[path]

    return read


HASHES = [merkle.leaf_hash(leaf(i)) for i in range(70_000)]


@pytest.fixture(scope="module")
def large() -> dict[str, bytes]:
    return build(70_000)


def test_paths_are_those_of_the_specification():
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(3, 0, 17) == "tile/3/000.p/17"
    assert bundle_path(999) == "tile/entries/999"
    assert bundle_path(1000, 1) == "tile/entries/x001/000.p/1"


def test_log_of_70000_has_the_files_that_the_specification_lists(large: dict[str, bytes]):
    paths = {path for path in large if not path.startswith("tile/entries/")}
    level0 = {tile_path(0, i) for i in range(273)} | {tile_path(0, 273, 112)}
    above = {tile_path(1, 0), tile_path(1, 1, 17), tile_path(2, 0, 1)}
    assert paths == level0 | above
    assert len(large) - len(paths) == 274
    assert all(len(large[tile_path(0, i)]) == 8192 for i in range(273))


def test_log_of_256_has_one_full_tile_and_one_hash_above():
    assert set(build(256)) == {bundle_path(0), tile_path(0, 0), tile_path(1, 0, 1)}


def test_every_bundle_hashes_to_the_tile_beside_it(large: dict[str, bytes]):
    for path, data in large.items():
        if path.startswith("tile/entries/"):
            hashes = b"".join(merkle.leaf_hash(entry) for entry in decode_bundle(data))
            assert hashes == large[path.replace("entries", "0")]


def test_roots_and_proofs_from_tiles_are_those_of_the_tree(large: dict[str, bytes]):
    tree = TileTree(reader(large), 70_000)
    root = merkle.tree_root(HASHES)
    assert tree.root() == root
    for index in (0, 255, 256, 65_535, 65_536, 69_999):
        assert tree.leaf_hash(index) == HASHES[index]
        path = tree.inclusion_path(index, 70_000)
        merkle.verify_inclusion(index, 70_000, HASHES[index], path, root)
    for old in (1, 255, 256, 257, 65_536, 65_537, 69_999, 70_000):
        path = tree.consistency_path(old, 70_000)
        merkle.verify_consistency(old, 70_000, path, merkle.tree_root(HASHES[:old]), root)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.data())
def test_proofs_from_tiles_hold_for_every_size(size: int, data: st.DataObject):
    tree = TileTree(reader(build(size)), size)
    new = data.draw(st.integers(1, size))
    old = data.draw(st.integers(0, new))
    index = data.draw(st.integers(0, new - 1))
    root = merkle.tree_root(HASHES[:new])
    path = tree.inclusion_path(index, new)
    merkle.verify_inclusion(index, new, HASHES[index], path, root)
    merkle.verify_consistency(
        old, new, tree.consistency_path(old, new), merkle.tree_root(HASHES[:old]), root
    )


def test_older_size_is_read_from_the_full_tile_where_the_partial_one_is_gone():
    files = build(600)
    tree = TileTree(reader(files), 100)
    assert tile_path(0, 0, 100) not in files
    assert tree.root() == merkle.tree_root(HASHES[:100])


def test_missing_or_cut_tile_is_named():
    files = build(300)
    path = tile_path(0, 1, 44)
    with pytest.raises(InputError, match="tile/0/001"):
        TileTree(reader({k: v for k, v in files.items() if k != path}), 300).root()
    with pytest.raises(FormatError, match=path):
        TileTree(reader(files | {path: files[path][:-1]}), 300).root()


@pytest.mark.parametrize("leaves", [LeafRange(0, 301), LeafRange(-1, 4), LeafRange(1, 3)])
def test_range_that_is_no_part_of_the_tree_is_refused(leaves: LeafRange):
    with pytest.raises(FormatError):
        TileTree(reader(build(300)), 300).range_root(leaves)


def test_written_files_are_read_back_and_full_ones_replace_partial_ones(tmp_path: Path):
    directory, builder = TileDirectory(tmp_path), TileBuilder()
    for index in range(256):
        for file in (*builder.add(leaf(index)), *builder.open_files()):
            if index in (10, 255):
                directory.write([file])
    assert set(directory.names()) == {bundle_path(0), tile_path(0, 0), tile_path(1, 0, 1)}
    assert TileTree(directory.read, 256).root() == merkle.tree_root(HASHES[:256])


def test_file_that_cannot_be_written_is_an_input_error(tmp_path: Path):
    (tmp_path / "tile").write_text("in the way")
    with pytest.raises(InputError, match="cannot make directory"):
        TileDirectory(tmp_path).write([TileFile(tile_path(0, 0, 1), bytes(32))])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=70), max_size=8), st.binary(max_size=80))
def test_bundles_have_one_reading(leaves: list[bytes], noise: bytes):
    assert decode_bundle(encode_bundle(leaves)) == leaves
    try:
        assert encode_bundle(decode_bundle(noise)) == noise
    except AttestError:
        return


def test_bundle_that_is_cut_or_too_long_is_refused():
    data = encode_bundle([b"abc"])
    for wrong in (data[:1], data[:-1], data + b"\0", encode_bundle([b""] * 257)):
        with pytest.raises(FormatError):
            decode_bundle(wrong)
    with pytest.raises(FormatError):
        encode_bundle([bytes(65_536)])
