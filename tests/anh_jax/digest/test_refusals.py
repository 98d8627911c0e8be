"""A tree without a byte layout is refused in one line that names the place."""

from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.digest.host import tree_digest
from anh_jax.errors import AnhError


def root(tree: Any, *, step: int = 1) -> bytes:
    return tree_digest(tree, step=step).root


class Moments(namedtuple("Moments", "mu nu")):
    """A container of the kind that optimizer libraries use."""


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({}, "no tensor"),
        (None, "no tensor"),
        ({"a": {}, "b": [None]}, "no tensor"),
        ({"a": {"n": 1}}, "a/n: int is not an array"),
        ({"n": 1.0}, "float is not an array"),
        ({"n": True}, "bool is not an array"),
        ({"n": "x"}, "str is not an array"),
        ({"n": b"x"}, "bytes is not an array"),
        ({"n": jnp.asarray(1.0)}, "n: weakly typed float32"),
        ({"n": Moments(np.zeros(1), np.zeros(1))}, "Moments is not an array"),
        ({"n": np.array(["x"])}, "no byte layout"),
        ({"n": np.array([None])}, "no byte layout"),
        ({"n": np.zeros(1, "M8[s]")}, "no byte layout"),
        ({1.5: np.zeros(1)}, "key 1.5 is neither"),
        ({True: np.zeros(1)}, "key True is neither"),
        ({-1: np.zeros(1)}, "key -1 is neither"),
        ({"\ud800": np.zeros(1)}, "neither Unicode text"),
    ],
)
def test_tree_without_bytes_is_refused_in_one_line(tree: Any, reason: str):
    with pytest.raises(AnhError, match=reason) as caught:
        tree_digest(tree, step=1)
    assert "\n" not in str(caught.value)


def test_tree_nested_too_deep_is_refused():
    tree: Any = np.zeros(1)
    for _ in range(64):
        tree = {"a": tree}
    root(tree)
    with pytest.raises(AnhError, match="deeper than 64"):
        root({"a": tree})
    for _ in range(5000):
        tree = [tree]
    with pytest.raises(AnhError, match="deeper than 64"):
        root(tree)


@pytest.mark.parametrize("step", [-1, 2**53, True])
def test_step_that_is_no_count_is_refused(step: int):
    with pytest.raises(AnhError, match="not a count of completed steps"):
        root({"w": np.zeros(1)}, step=step)


def test_unknown_algorithm_is_refused():
    with pytest.raises(AnhError, match="'md5' is unknown; use one of blake3, sha256"):
        tree_digest({"w": np.zeros(1)}, step=1, alg="md5")


def test_deleted_array_is_refused():
    array = jnp.zeros(8, jnp.float32)
    array.delete()
    with pytest.raises(AnhError, match="donated or deleted"):
        root({"w": array})


def test_traced_value_is_refused():
    def traced(array: jax.Array) -> jax.Array:
        root({"w": array})
        return array

    with pytest.raises(AnhError, match="outside jit"):
        jax.jit(traced)(jnp.zeros(8, jnp.float32))
