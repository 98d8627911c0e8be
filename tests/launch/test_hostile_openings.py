"""What a dishonest sender may do to an opened tile on its way: nothing of it gets through.

Each case starts from an honest file and its run's proof. What a trainer may do who signs the line
itself is in test_opened_states.py and in tests/attest/test_opening.py.
"""

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anh_jax.digest.host import tree_digest
from anh_jax.digest.opening import open_tile
from attest import canonical
from attest.errors import FormatError, RefusedError
from attest.merkle import inclusion_path, leaf_hash
from attest.opening import Opening, verify_opening
from attest.statements import Row
from launch.cli import run
from launch.opened_tile import OpenedTile
from launch.verification import verify_opened_tile

STEP = 8
BIAS = ("parameters", "out", "bias")
KERNEL = ("parameters", "out", "kernel")
MOMENT = ("optimizer", "m", "out", "kernel")


def state_after(step: int) -> dict[str, Any]:
    """Return a state in which two tensors are equal, so that only their headers differ."""
    kernel = np.random.default_rng(step).standard_normal((192, 256), dtype=np.float32)
    return {
        "step": np.uint32(step),
        "parameters": {"out": {"kernel": kernel, "bias": kernel[0, :9].copy()}},
        "optimizer": {"m": {"out": {"kernel": kernel.copy()}}},
    }


@dataclasses.dataclass(frozen=True)
class Opened:
    """A proven run and one honest opened tile of it."""

    made: Any
    tile: OpenedTile

    @property
    def proof(self) -> bytes:
        return (self.made.root / "run.proof").read_bytes()

    def check(self, data: bytes) -> str:
        """Return the check or the code that refuses a file; anything else fails the test."""
        with pytest.raises((FormatError, RefusedError)) as caught:
            verify_opened_tile(data, self.proof)
        assert "\n" not in str(caught.value)
        return getattr(caught.value, "check", None) or caught.value.code

    def with_opening(self, **changes: Any) -> str:
        opening = dataclasses.replace(self.tile.opening, **changes)
        return self.check(dataclasses.replace(self.tile, opening=opening).to_bytes())

    def with_(self, **changes: Any) -> str:
        return self.check(dataclasses.replace(self.tile, **changes).to_bytes())


def opened_tile(made: Any, path: tuple[str, ...], index: tuple[int, ...]) -> OpenedTile:
    state = state_after(STEP)
    data = open_tile(state, tree_digest(state, step=STEP), path=path, index=index)
    hashes = [bytes.fromhex(made.run_id), *(row.hash() for row in made.rows)]
    line = tuple(inclusion_path(STEP, len(hashes), [leaf_hash(row) for row in hashes]))
    return OpenedTile(made.run_id, Opening.from_bytes(data), made.rows[STEP - 1], line)


def proven_run(maker: Callable[..., Any], name: str, **changes: Any) -> Any:
    root = tree_digest(state_after(STEP), step=STEP).root.hex()
    made = maker(name, state_roots={STEP: root}, **changes)
    made.ship()
    return made


@pytest.fixture
def kernel(maker: Callable[..., Any], key_home: Path) -> Opened:
    """Return the opening of tile (1, 1) of a tensor of several tiles."""
    made = proven_run(maker, "kernel")
    tile = opened_tile(made, KERNEL, (1, 1))
    assert math.prod(tile.opening.header.grid) >= 8
    return Opened(made, tile)


@pytest.fixture
def bias(maker: Callable[..., Any], key_home: Path) -> Opened:
    """Return the opening of a tensor of one small tile: a short file."""
    made = proven_run(maker, "bias")
    return Opened(made, opened_tile(made, BIAS, (0,)))


def test_honest_files_are_accepted(kernel: Opened, bias: Opened) -> None:
    for case in (kernel, bias):
        assert verify_opened_tile(case.tile.to_bytes(), case.proof) == case.tile


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_every_changed_byte_of_a_file_is_refused(bias: Opened) -> None:
    data = bias.tile.to_bytes()
    # Bits 0 to 6 in turn: the byte stays ASCII, and often a digit, a letter, base64.
    seen = {bias.check(flipped(data, at, at % 7)) for at in range(len(data))}
    assert {"run", "row", "line", "root", "header", "alg"} <= seen


@pytest.mark.full
def test_every_changed_bit_of_a_file_is_refused(bias: Opened) -> None:
    data = bias.tile.to_bytes()
    for at, bit in itertools.product(range(len(data)), range(8)):
        bias.check(flipped(data, at, bit))


def test_changed_bytes_of_a_whole_tile_are_refused(kernel: Opened) -> None:
    data = kernel.tile.to_bytes()
    for at in random.Random(0).sample(range(len(data)), 60):
        kernel.check(flipped(data, at, at % 7))


@pytest.mark.full
def test_every_changed_byte_of_a_whole_tile_is_refused() -> None:
    # In SHA-256, which the standard library computes fast enough for each of 22,000 bytes.
    state = state_after(STEP)
    digest = tree_digest(state, step=STEP, alg="sha256")
    data = open_tile(state, digest, path=KERNEL, index=(1, 1))
    for at in range(len(data)):
        with pytest.raises((FormatError, RefusedError)):
            verify_opening(flipped(data, at, at % 7), root=digest.root, alg="sha256")


def test_any_part_left_out_doubled_or_moved_is_refused(bias: Opened) -> None:
    data = bias.tile.to_bytes()
    random_ = random.Random(1)
    for _ in range(150):
        start, end = sorted(random_.sample(range(len(data) + 1), 2))
        part = data[start:end]
        at = random_.randrange(len(data))
        for changed in (data[:start] + data[end:], data[:end] + part + data[end:],
                        data[:at] + part + data[at:]):  # fmt: skip
            if changed != data:
                bias.check(changed)


def test_field_more_or_less_is_refused(bias: Opened) -> None:
    fields: Any = canonical.decode(bias.tile.to_bytes(), max_bytes=1 << 20)
    for name in fields:
        rest = {key: value for key, value in fields.items() if key != name}
        assert bias.check(canonical.encode(rest)) == "fields"
    assert bias.check(canonical.encode(fields | {"note": "checked"})) == "fields"
    inner = {**fields, "opening": fields["opening"] | {"note": "checked"}}
    assert bias.check(canonical.encode(inner)) == "opening"


def test_field_of_another_form_is_refused(bias: Opened) -> None:
    fields: Any = canonical.decode(bias.tile.to_bytes(), max_bytes=1 << 20)
    lines = (None, "00" * 32, {}, [0], ["00" * 31], ["AB" * 32], ["zz" * 32])
    for line in lines:
        assert bias.check(canonical.encode(fields | {"line": line})) == "fields"
    for name in (None, "00" * 31, "AB" * 32, 0):
        assert bias.check(canonical.encode(fields | {"run": name})) == "fields"
    for name, value in itertools.product(("row", "opening"), (0, "row", [], {}, {"step": 8})):
        bias.check(canonical.encode(fields | {name: value}))


def test_index_outside_the_grid_is_refused(kernel: Opened) -> None:
    grid, index = kernel.tile.opening.header.grid, kernel.tile.opening.index
    for axis, count in enumerate(grid):
        # Adding the grid's extent leaves every turn of the path as it was.
        aliased = tuple(i + count * (a == axis) for a, i in enumerate(index))
        assert kernel.with_opening(index=aliased) == "index"
    for other in ((), index[:1], (*index, 0)):
        assert kernel.with_opening(index=other) == "index"


def test_every_other_place_in_the_grid_is_refused(kernel: Opened) -> None:
    grid, index = kernel.tile.opening.header.grid, kernel.tile.opening.index
    for place in itertools.product(*map(range, grid)):
        if place != index:
            assert kernel.with_opening(index=place) == "root"


def variants(nodes: tuple[bytes, ...]) -> Iterator[tuple[bytes, ...]]:
    """Yield a path with one node more or less, at each place."""
    for at in range(len(nodes)):
        yield nodes[:at] + nodes[at + 1 :]
        yield nodes[:at] + nodes[at : at + 1] + nodes[at:]
    yield (*nodes, bytes(32))


@pytest.mark.parametrize(
    "name, check", [("siblings", "siblings"), ("set_siblings", "set siblings")]
)
def test_extra_or_missing_sibling_is_refused(name: str, check: str, kernel: Opened) -> None:
    nodes = getattr(kernel.tile.opening, name)
    assert len(nodes) >= 2
    for changed in variants(nodes):
        assert kernel.with_opening(**{name: changed}) == check
    for at in range(len(nodes) - 1):
        swapped = (*nodes[:at], nodes[at + 1], nodes[at], *nodes[at + 2 :])
        assert kernel.with_opening(**{name: swapped}) == "root"


def test_line_with_a_node_more_or_less_is_refused(bias: Opened) -> None:
    for changed in variants(bias.tile.line):
        assert bias.with_(line=changed) in ("line", "inclusion")
    assert bias.with_(line=(bytes(32),) * 65) == "fields"


def test_tile_one_byte_longer_or_shorter_is_refused(kernel: Opened) -> None:
    tile = kernel.tile.opening.tile
    for changed in (tile + b"\0", b"\0" + tile, tile[:-1], tile[1:], b"", tile * 2):
        assert kernel.with_opening(tile=changed) == "tile length"


def test_grid_that_is_not_the_rule_s_is_refused(kernel: Opened) -> None:
    header = kernel.tile.opening.header
    for grid in ((1, 1), header.grid[::-1], tuple(2 * n for n in header.grid), (3, 1), (0, 0)):
        if grid != header.grid:
            changed = dataclasses.replace(header, grid=grid)
            assert kernel.with_opening(header=changed) == "grid"


def test_header_of_another_tensor_is_refused(kernel: Opened) -> None:
    other = opened_tile(kernel.made, MOMENT, (1, 1)).opening
    mine = kernel.tile.opening
    assert other.tile == mine.tile and other.siblings == mine.siblings
    assert kernel.with_opening(header=other.header) == "root"
    places = {"set_index": other.set_index, "set_siblings": other.set_siblings}
    assert kernel.with_opening(**places) == "root"
    for changes in ({"path": BIAS}, {"dtype": "int32"}, {"dtype": "uint32"}):
        header = dataclasses.replace(mine.header, **changes)
        assert kernel.with_opening(header=header) == "root"


def test_number_of_tensors_or_place_among_them_is_refused_where_changed(kernel: Opened) -> None:
    opening = kernel.tile.opening
    assert opening.tensors == 4
    for tensors in range(9):
        if tensors != opening.tensors:
            expected = {"root", "set siblings"} if tensors > opening.set_index else {"set index"}
            assert kernel.with_opening(tensors=tensors) in expected
    for place in range(4):
        if place != opening.set_index:
            assert kernel.with_opening(set_index=place) in ("root", "set siblings")


@pytest.mark.parametrize(
    "step, check", [(0, "field"), (STEP - 1, "line"), (STEP + 1, "line"), (2**53 - 1, "index")]
)
def test_changed_step_is_refused(step: int, check: str, kernel: Opened) -> None:
    assert kernel.tile.row is not None
    assert kernel.with_opening(step=step) == "row"
    # The row is moved besides: it is on the line at its own place only.
    opening = dataclasses.replace(kernel.tile.opening, step=step)
    moved = dataclasses.replace(kernel.tile.row, step=step)
    assert kernel.with_(opening=opening, row=moved) == check
    # Or left out: without one, only genesis' state 0 can be opened.
    expected = "row" if step else "root"
    assert kernel.with_(opening=opening, row=None, line=()) == expected


def test_another_row_of_the_run_is_refused(kernel: Opened) -> None:
    rows: list[Row] = kernel.made.rows
    for other in (rows[STEP - 2], rows[STEP]):
        assert kernel.with_(row=other) == "row"
        # With its step besides, the row is on the line at its own place only.
        opening = dataclasses.replace(kernel.tile.opening, step=other.step)
        assert kernel.with_(row=other, opening=opening) == "line"


def test_file_of_another_run_is_refused_whatever_is_adapted(
    kernel: Opened, maker: Callable[..., Any]
) -> None:
    """Two runs that went through one state: the tile is in both, the file is about one."""
    other = proven_run(maker, "other", seed=1)
    theirs = opened_tile(other, KERNEL, (1, 1))
    assert theirs.opening == kernel.tile.opening and theirs.row is not None
    mine = kernel.made.run_id
    assert kernel.check(theirs.to_bytes()) == "run"
    assert kernel.with_(run=mine, row=theirs.row, line=theirs.line) == "row"
    adapted = dataclasses.replace(theirs.row, run=mine)
    assert kernel.with_(row=adapted, line=theirs.line) == "line"
    assert kernel.with_(row=adapted) == "line"


def verify(case: Opened, file: Path, *, policy: Path, proof: Path) -> int:
    return run(["verify", str(file), "--policy", str(policy), "--proof", str(proof)])


@pytest.fixture
def sent(kernel: Opened, tmp_path: Path) -> Path:
    path = tmp_path / "sent.json"
    path.write_bytes(kernel.tile.to_bytes())
    return path


def test_command_refuses_what_the_library_refuses(
    kernel: Opened, sent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = kernel.made.root
    names = {"policy": root / "policy.toml", "proof": root / "run.proof"}
    assert verify(kernel, sent, **names) == 0
    capsys.readouterr()
    data = sent.read_bytes()
    for at in random.Random(2).sample(range(len(data)), 12):
        sent.write_bytes(flipped(data, at, at % 7))
        assert verify(kernel, sent, **names) in (1, 2)
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1


def test_proof_of_another_run_or_policy_of_another_log_is_refused(
    kernel: Opened, sent: Path, maker: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    mine, other = kernel.made.root, proven_run(maker, "other", seed=1).root
    cases = (
        # The proof is good under its own policy and about another run.
        (other / "policy.toml", other / "run.proof", "of another run"),
        # The reader's policy does not trust the proof's log, or the proof is not its log's.
        (other / "policy.toml", mine / "run.proof", "checkpoint"),
        (mine / "policy.toml", other / "run.proof", "checkpoint"),
    )
    for policy, proof, said in cases:
        assert verify(kernel, sent, policy=policy, proof=proof) == 1
        captured = capsys.readouterr()
        assert said in captured.err and captured.out == ""


def test_damaged_proof_opens_nothing(
    kernel: Opened, sent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = kernel.made.root
    value: Any = canonical.decode(kernel.proof, max_bytes=1 << 20)
    final = next(r for r in value["records"] if "line" in r["statement"]["predicate"])
    final["statement"]["predicate"]["line"]["root"] = "00" * 32
    (root / "run.proof").write_bytes(canonical.encode(value))
    names = {"policy": root / "policy.toml", "proof": root / "run.proof"}
    assert verify(kernel, sent, **names) == 1
    assert "inclusion" in capsys.readouterr().err
