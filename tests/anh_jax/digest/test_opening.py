import itertools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anh_jax.digest.host import tree_digest
from anh_jax.digest.opening import open_tile
from anh_jax.errors import AnhError
from attest.digest_tree import ALGORITHMS, path_text
from attest.errors import RefusedError
from attest.opening import verify_opening
from attest.tensor_header import TensorHeader

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_first_and_last_tile_of_every_tensor_verify(golden_state: Any, alg: str):
    digest = tree_digest(golden_state, step=7, alg=alg)
    for tensor in digest.tensors:
        grid = TensorHeader.from_bytes(tensor.header).grid
        for index in (tuple(0 for _ in grid), tuple(count - 1 for count in grid)):
            data = open_tile(golden_state, digest, path=tensor.path, index=index)
            opening = verify_opening(data, root=digest.root, alg=alg)
            assert (opening.header.path, opening.index) == (tensor.path, index)
            assert (opening.step, opening.tensors) == (7, len(digest.tensors))


def test_every_tile_of_a_grid_holds_its_block():
    array = np.random.default_rng(0).integers(0, 2**16, (16, 32, 512), np.uint16)
    digest = tree_digest({"w": array}, step=1, alg="sha256")
    grid = TensorHeader.from_bytes(digest.tensors[0].header).grid
    assert grid == (4, 4, 2)
    for index in itertools.product(*map(range, grid)):
        data = open_tile({"w": array}, digest, path=("w",), index=index)
        opening = verify_opening(data, root=digest.root, alg="sha256")
        a, b, c = index
        block = array[4 * a : 4 * a + 4, 8 * b : 8 * b + 8, 256 * c : 256 * c + 256]
        assert opening.tile == block.tobytes()


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_golden_opening_keeps_its_bytes(golden_state: Any, alg: str):
    golden = json.loads((GOLDEN / "state_digest.json").read_bytes())["openings"][alg]
    digest = tree_digest(golden_state, step=7, alg=alg)
    path, index = ("parameters", "w"), tuple(golden["index"])
    assert open_tile(golden_state, digest, path=path, index=index).decode() == golden["file"]


def test_opening_of_a_sharded_tensor_is_the_opening_of_the_whole():
    array = np.arange(256 * 512, dtype=np.float32).reshape(256, 512)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
    held = jax.device_put(array, NamedSharding(mesh, PartitionSpec("a", "b")))
    digest = tree_digest({"w": held}, step=1)
    whole = open_tile({"w": array}, digest, path=("w",), index=(5, 3))
    assert open_tile({"w": held}, digest, path=("w",), index=(5, 3)) == whole


def test_opening_of_a_tile_is_some_kilobytes():
    array = np.zeros((1024, 1024), np.float32)
    digest = tree_digest({"w": array}, step=1)
    data = open_tile({"w": array}, digest, path=("w",), index=(0, 0))
    assert len(data) < 16384 * 4 / 3 + 8 * 67 + 600


def test_opening_made_for_one_step_is_refused_at_another():
    tree = {"w": np.zeros(4, np.float32)}
    digest = tree_digest(tree, step=1)
    data = open_tile(tree, digest, path=("w",), index=(0,))
    with pytest.raises(RefusedError):
        verify_opening(data, root=tree_digest(tree, step=2).root)


@pytest.mark.parametrize(
    ("tree", "path", "index", "reason"),
    [
        ({"w": np.ones(4, np.float32)}, ("w",), (0,), "differs from what was digested"),
        ({"v": np.zeros(4, np.float32)}, ("w",), (0,), "other paths"),
        ({"w": np.zeros(4, np.float32)}, ("v",), (0,), "no tensor at v"),
        ({"w": np.zeros(4, np.float32)}, ("w",), (1,), "outside"),
        ({"w": np.zeros(4, np.float32)}, ("w",), (-1,), "outside"),
        ({"w": np.zeros(4, np.float32)}, ("w",), (), "outside"),
    ],
)
def test_opening_that_cannot_be_made_is_refused(
    tree: Any, path: tuple[str], index: tuple[int, ...], reason: str
):
    digest = tree_digest({"w": np.zeros(4, np.float32)}, step=1)
    with pytest.raises(AnhError, match=reason):
        open_tile(tree, digest, path=path, index=index)


def test_path_text_names_the_tensor():
    assert path_text(("parameters", "layers", 0, "w")) == "parameters/layers/0/w"
    assert path_text(()) == "(root)"
