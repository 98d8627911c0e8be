import base64
import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.digest_tree import (
    ALGORITHMS,
    DigestLevel,
    climb,
    encode_path,
    level_hash,
    merge_axes,
    path_text,
    set_root,
    set_siblings,
    set_turns,
    state_bytes,
    tensor_bytes,
    tile_grid,
    tile_turns,
)
from attest.errors import FormatError, InputError, RefusedError
from attest.opening import MAX_BYTES, Opening, verify_opening
from attest.tensor_header import TensorHeader, TensorKind, tensor_header

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
STRUCTURE = bytes(range(32))


@dataclass(frozen=True)
class Opened:
    opening: Opening
    root: bytes


def opened(
    header: TensorHeader,
    tile: bytes,
    *,
    index: Sequence[int] = (),
    siblings: Sequence[bytes] = (),
    alg: str = "blake3",
    others: int = 0,
    step: int = 3,
) -> Opened:
    """Commit to whatever a dishonest trainer may build: the root always fits the opening."""
    hash_level = level_hash(alg)
    turns = [0] * len(siblings)
    if len(index) == len(header.grid):
        turns = (list(tile_turns(header.grid, index)) + turns)[: len(siblings)]
    leaf = hash_level(DigestLevel.TILE, tile)
    top = climb(hash_level, DigestLevel.NODE, leaf, turns, siblings)
    tensor = hash_level(DigestLevel.TENSOR, tensor_bytes(header.to_bytes(), top))
    tensors = [tensor, *(bytes([i]) * 32 for i in range(others))]
    opening = Opening(
        alg=alg,
        header=header,
        index=tuple(index),
        tile=tile,
        siblings=tuple(siblings),
        set_index=0,
        set_siblings=set_siblings(hash_level, tensors, 0),
        tensors=len(tensors),
        structure=STRUCTURE,
        step=step,
    )
    material = state_bytes(step, len(tensors), STRUCTURE, set_root(hash_level, tensors))
    return Opened(opening, hash_level(DigestLevel.STATE, material))


def small(alg: str = "blake3") -> Opened:
    header = tensor_header(("w",), "float32", (2,))
    return opened(header, bytes(range(8)), index=(0,), alg=alg, others=1)


def gridded() -> Opened:
    """Open tile (1, 1) of a grid of (2, 2)."""
    header = tensor_header(("w",), "uint8", (64, 1024))
    assert header.grid == (2, 2)
    return opened(header, bytes(16384), index=(1, 1), siblings=(b"a" * 32, b"b" * 32))


def refusal(case: Opened, **changes: object) -> str:
    opening = replace(case.opening, **changes)
    with pytest.raises(RefusedError) as caught:
        verify_opening(opening.to_bytes(), root=case.root)
    return caught.value.check


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_honest_opening_verifies(alg: str):
    case = small(alg)
    assert verify_opening(case.opening.to_bytes(), root=case.root, alg=alg) == case.opening


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_golden_opening_verifies(alg: str):
    golden = json.loads((GOLDEN / "state_digest.json").read_bytes())["openings"][alg]
    root = bytes.fromhex(golden["root"])
    opening = verify_opening(golden["file"].encode(), root=root, alg=alg)
    assert path_text(opening.header.path) == "parameters/w"
    assert opening.index == tuple(golden["index"])


def test_every_flipped_bit_is_refused():
    case = small()
    data = case.opening.to_bytes()
    for at in range(len(data)):
        for bit in range(8):
            damaged = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises((FormatError, RefusedError)):
                verify_opening(damaged, root=case.root)


def test_opening_cut_short_or_extended_is_refused():
    case = small()
    data = case.opening.to_bytes()
    for damaged in (data[:-1], data + b"\n", data + data, b"", b"[]", b"null"):
        with pytest.raises(FormatError):
            verify_opening(damaged, root=case.root)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_a_format_error(data: bytes):
    with pytest.raises(FormatError):
        verify_opening(data, root=bytes(32))


def test_every_tile_and_every_tensor_leads_to_the_root():
    hash_level = level_hash("sha256")
    for count in range(1, 18):
        tensors = [bytes([i]) * 32 for i in range(count)]
        root = set_root(hash_level, tensors)
        for place, tensor in enumerate(tensors):
            siblings = set_siblings(hash_level, tensors, place)
            turns = set_turns(place, count)
            assert climb(hash_level, DigestLevel.SET, tensor, turns, siblings) == root


def test_set_has_the_shape_of_rfc_6962():
    h, t = level_hash("blake3"), [bytes([i]) * 32 for i in range(7)]

    def join(left: bytes, right: bytes) -> bytes:
        return h(DigestLevel.SET, left + right)

    left = join(join(t[0], t[1]), join(t[2], t[3]))
    assert set_root(h, t) == join(left, join(join(t[4], t[5]), t[6]))


def test_wrong_root_is_refused():
    case = small()
    with pytest.raises(RefusedError, match="does not lead") as caught:
        verify_opening(case.opening.to_bytes(), root=bytes(32))
    assert caught.value.check == "root"


def test_changed_content_is_refused():
    case = gridded()
    for changes in (
        {"tile": b"\x01" + bytes(16383)},
        {"index": (0, 1)},
        {"siblings": (b"a" * 32, b"c" * 32)},
        {"siblings": (b"b" * 32, b"a" * 32)},
        {"structure": bytes(32)},
        {"step": 4},
        {"header": replace(case.opening.header, path=("v",))},
        {"header": replace(case.opening.header, dtype="int8")},
    ):
        assert refusal(case, **changes) == "root"


def test_index_that_aliases_a_tile_modulo_the_grid_is_refused():
    assert refusal(gridded(), index=(3, 1)) == "index"
    assert refusal(gridded(), index=(1,)) == "index"
    assert refusal(gridded(), index=(1, 1, 0)) == "index"


def test_set_index_that_aliases_another_place_is_refused():
    header = tensor_header(("w",), "float32", (2,))
    alone = opened(header, bytes(8), index=(0,))
    assert refusal(alone, set_index=1) == "set index"
    assert refusal(alone, tensors=0) == "set index"
    assert refusal(alone, tensors=2**32) == "set index"


def test_wrong_number_of_siblings_is_refused():
    case = gridded()
    assert refusal(case, siblings=()) == "siblings"
    assert refusal(case, siblings=(b"a" * 32,)) == "siblings"
    assert refusal(case, siblings=(b"a" * 32,) * 3) == "siblings"
    assert refusal(case, set_siblings=(b"a" * 32,)) == "set siblings"
    assert refusal(small(), set_siblings=()) == "set siblings"


def test_committed_subtree_passed_off_as_a_tile_is_refused():
    # The trainer commits to a tree with fewer levels than the grid has.
    header = tensor_header(("w",), "uint8", (64, 1024))
    assert refusal(opened(header, bytes(16384), index=(0, 0), siblings=(b"a" * 32,))) == "siblings"


@pytest.mark.parametrize("length", [0, 7, 9, 16])
def test_committed_tile_of_another_length_is_refused(length: int):
    header = tensor_header(("w",), "float32", (2,))
    assert refusal(opened(header, bytes(length), index=(0,))) == "tile length"


@pytest.mark.parametrize(("dtype", "byte"), [("bool", 2), ("int4", 16), ("uint4", 255)])
def test_committed_byte_that_no_element_has_is_refused(dtype: str, byte: int):
    header = tensor_header(("w",), dtype, (2,))
    assert refusal(opened(header, bytes([0, byte]), index=(0,))) == "element"
    honest = opened(header, bytes([0, 1]), index=(0,))
    verify_opening(honest.opening.to_bytes(), root=honest.root)


def test_committed_grid_that_is_not_the_rules_is_refused():
    header = replace(tensor_header(("w",), "uint8", (64, 1024)), grid=(1, 1))
    case = opened(header, bytes(64 * 1024), index=(0, 0))
    with pytest.raises(FormatError, match="grid") as caught:
        verify_opening(case.opening.to_bytes(), root=case.root)
    assert caught.value.code == "grid"


def test_algorithm_is_the_callers_not_the_files():
    case = small("sha256")
    with pytest.raises(RefusedError, match="uses sha256") as caught:
        verify_opening(case.opening.to_bytes(), root=case.root)
    assert caught.value.check == "alg"
    assert refusal(small(), alg="sha256") == "alg"
    with pytest.raises(InputError, match="md5"):
        verify_opening(case.opening.to_bytes(), root=case.root, alg="md5")


def test_root_of_another_length_is_an_input_error():
    case = small()
    with pytest.raises(InputError, match="32 bytes"):
        verify_opening(case.opening.to_bytes(), root=case.root[:31])


def test_larger_file_than_allowed_is_refused_before_it_is_parsed():
    case = small()
    data = case.opening.to_bytes()
    verify_opening(data, root=case.root, max_bytes=len(data))
    with pytest.raises(FormatError, match="more than"):
        verify_opening(data, root=case.root, max_bytes=len(data) - 1)
    with pytest.raises(FormatError, match="more than"):
        verify_opening(b" " * (MAX_BYTES + 1), root=case.root)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "anh opening v2"),
        ("alg", 1),
        ("extra", 1),
        ("step", -1),
        ("step", True),
        ("step", "3"),
        ("tensors", None),
        ("index", 0),
        ("index", [False]),
        ("siblings", "00"),
        ("siblings", ["00"]),
        ("setSiblings", [0]),
        ("structure", "00" * 31),
        ("structure", "AB" * 32),
        ("structure", " " + "00" * 32),
        ("structure", "zz" * 32),
        ("tile", 0),
        ("tile", "AAECAwQFBgc"),
        ("tile", "AAECAwQFBgd="),
        ("tile", "AAECAwQF Bgc="),
        ("header", "00"),
        ("header", None),
    ],
)
def test_field_of_another_form_is_refused(field: str, value: object):
    case = small()
    fields = json.loads(case.opening.to_bytes()) | {field: value}
    data = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(FormatError):
        verify_opening(data, root=case.root)


def test_missing_field_is_refused():
    case = small()
    fields = json.loads(case.opening.to_bytes())
    for name in fields:
        rest = {key: value for key, value in fields.items() if key != name}
        data = json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
        with pytest.raises(FormatError):
            verify_opening(data, root=case.root)


def header_bytes(
    *,
    start: bytes = b"\x01\x00",
    path: bytes = b"\x01\x00\x00\x01\x00\x00\x00w",
    dtype: bytes = b"\x07float32",
    rank: int = 1,
    dims: bytes = struct.pack("<2Q", 2, 1),
) -> bytes:
    return start + path + dtype + bytes([rank]) + dims


def test_header_has_the_documented_bytes():
    assert tensor_header(("w",), "float32", (2,)).to_bytes() == header_bytes()
    key = tensor_header(
        (5,), "uint32", (2,), kind=TensorKind.KEY, implementation="threefry2x32"
    ).to_bytes()
    assert key == header_bytes(
        start=b"\x01\x01",
        path=b"\x01\x00\x01\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00",
        dtype=b"\x06uint32\x0cthreefry2x32",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        header_bytes()[:-1],
        header_bytes() + b"\x00",
        header_bytes(start=b"\x02\x00"),
        header_bytes(start=b"\x01\x02"),
        header_bytes(start=b"\x01\x01"),
        header_bytes(start=b"\x01\x01", dtype=b"\x07float32\x0cthreefry2x32"),
        header_bytes(start=b"\x01\x01", dtype=b"\x06uint32\x00"),
        header_bytes(path=b"\x41\x00" + b"\x00\x01\x00\x00\x00w" * 65),
        header_bytes(path=b"\x01\x00\x02\x01\x00\x00\x00w"),
        header_bytes(path=b"\x01\x00\x01\x01\x00\x00\x00w"),
        header_bytes(path=b"\x01\x00\x00\x01\x00\x00\x00\xff"),
        header_bytes(path=b"\x01\x00\x00\xff\xff\xff\xffw"),
        header_bytes(dtype=b"\x07float31"),
        header_bytes(dtype=b"\x00"),
        header_bytes(dtype=b"\x07floa\xff32"),
        header_bytes(rank=0),
        header_bytes(rank=2),
        header_bytes(rank=65, dims=struct.pack("<130Q", *[1] * 130)),
        header_bytes(dims=struct.pack("<2Q", 2, 2)),
        header_bytes(dims=struct.pack("<2Q", 16384, 2)),
    ],
)
def test_header_of_another_form_is_refused(data: bytes):
    with pytest.raises(FormatError):
        TensorHeader.from_bytes(data)


@settings(deadline=None)
@given(
    path=st.lists(st.text(max_size=5) | st.integers(0, 2**64 - 1), max_size=5),
    dtype=st.sampled_from(["bool", "bfloat16", "uint32", "complex128"]),
    dims=st.lists(st.integers(0, 2**40), max_size=6),
)
def test_header_survives_its_bytes(path: list[str | int], dtype: str, dims: list[int]):
    header = tensor_header(tuple(path), dtype, tuple(dims))
    assert TensorHeader.from_bytes(header.to_bytes()) == header


@settings(deadline=None)
@given(dims=st.lists(st.integers(0, 2**20), max_size=5), width=st.sampled_from([1, 2, 4, 8, 16]))
def test_grid_is_powers_of_two_that_divide_the_shape(dims: list[int], width: int):
    grid = tile_grid(dims, width)
    assert all(count & (count - 1) == 0 for count in grid)
    assert all(dim % count == 0 for dim, count in zip(dims, grid, strict=True))
    halvings = sum(count.bit_length() - 1 for count in grid)
    assert len(merge_axes(grid)) == halvings


@pytest.mark.parametrize(
    ("dims", "width", "grid"),
    [
        ((), 16, ()),
        ((4096,), 4, (1,)),
        ((8191,), 4, (1,)),
        ((8190,), 4, (1,)),  # its halves have less than 16 KiB
        ((8192,), 4, (2,)),
        ((8194,), 4, (2,)),
        ((8192, 8192), 4, (256, 64)),
        ((8192, 8192), 2, (256, 32)),
        ((32, 4096, 14336), 4, (32, 128, 64)),
        ((768, 3072), 4, (32, 16)),
        ((128256, 4096), 2, (256, 64)),
        ((50257, 768), 4, (1, 16)),
        ((50304, 768), 4, (128, 16)),
        ((100003,), 4, (1,)),
        ((16384, 32), 4, (128, 1)),
        ((8192, 4), 1, (2, 1)),
        ((255, 1024), 1, (1, 8)),  # only the last axis can be halved: rows of 128 bytes
        ((0, 8192, 8192), 4, (1, 1, 1)),
    ],
)
def test_tile_rule_gives_the_documented_grids(dims: list[int], width: int, grid: tuple[int, ...]):
    assert tile_grid(dims, width) == grid


def test_tiles_merge_along_the_axis_with_most_blocks_and_of_equals_the_last():
    assert merge_axes((4, 2)) == (0, 1, 0)
    assert merge_axes((2, 2, 4)) == (2, 2, 1, 0)
    assert merge_axes((1, 1)) == ()


@pytest.mark.parametrize("path", [("\ud800",), (-1,), (2**64,), ("a",) * 65])
def test_path_without_bytes_is_an_input_error(path: tuple[str | int, ...]):
    with pytest.raises(InputError):
        encode_path(path)


@pytest.mark.parametrize(
    ("dtype", "dims", "name"), [("float128", (), ""), ("int8", (1,) * 65, ""), ("uint32", (2,), "")]
)
def test_tensor_without_a_header_is_an_input_error(dtype: str, dims: tuple[int, ...], name: str):
    kind = TensorKind.KEY if dtype == "uint32" else TensorKind.ARRAY
    with pytest.raises(InputError):
        tensor_header(("w",), dtype, dims, kind=kind, implementation=name)


def test_verifier_loads_the_standard_library_alone():
    program = (
        "import sys; before = set(sys.modules); import attest.opening; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['attest']"


def test_tile_is_standard_base64():
    fields = json.loads(small().opening.to_bytes())
    assert base64.b64decode(fields["tile"]) == bytes(range(8))
