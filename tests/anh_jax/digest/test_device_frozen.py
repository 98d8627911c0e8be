"""Devices hash a frozen tensor once, and its digest is that of a tree read anew."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.digest.device import DeviceDigest, PendingTops
from anh_jax.digest.device_frozen import FrozenAside
from anh_jax.digest.digester import Digester
from anh_jax.digest.frozen import FrozenTops
from anh_jax.digest.host import tree_digest
from anh_jax.digest.layout import LaidOut
from anh_jax.errors import AnhError


class Counting(DeviceDigest):
    """Notes how many tensors each program hashes."""

    def __init__(self) -> None:
        super().__init__()
        self.hashed: list[int] = []

    def start_laid(self, laid: LaidOut, *, every_replica: bool = False) -> PendingTops:
        self.hashed.append(len(laid.values))
        return super().start_laid(laid, every_replica=every_replica)


def adapted() -> dict[str, Any]:
    values = np.random.default_rng(0).standard_normal((128, 256), dtype=np.float32)
    return {"w": jnp.asarray(values), "a": jnp.zeros((8, 8), jnp.float32)}


@pytest.fixture(scope="module")
def inner() -> Counting:
    return Counting()


@pytest.fixture
def digester(inner: Counting) -> FrozenAside:
    inner.hashed.clear()
    return FrozenAside(inner, FrozenTops())


def test_frozen_weights_are_hashed_once_and_the_digest_is_that_of_all(
    digester: FrozenAside, inner: Counting
):
    assert isinstance(digester, Digester) and digester.lag == 1
    state = adapted()
    for step in range(3):
        assert digester.start(state, step=step).result() == tree_digest(state, step=step)
        state["a"] = state["a"] + 1
    assert inner.hashed == [2, 1, 1]


def test_tree_of_known_arrays_alone_needs_no_program(digester: FrozenAside, inner: Counting):
    state = {"w": adapted()["w"]}
    digester.start(state, step=0).result()
    assert digester.start(state, step=9).result() == tree_digest(state, step=9)
    assert inner.hashed == [1]


def test_equal_array_that_is_another_object_is_hashed(digester: FrozenAside, inner: Counting):
    state = adapted()
    digester.start(state, step=0).result()
    state["w"] = state["w"] + 0
    digester.start(state, step=1).result()
    state["w"] = state["w"].at[3, 5].add(1)
    assert digester.start(state, step=2).result() == tree_digest(state, step=2)
    assert inner.hashed == [2, 2, 2]


def test_array_that_is_given_away_before_its_digest_is_read_is_not_remembered(inner: Counting):
    frozen = FrozenTops()
    digester, state = FrozenAside(inner, frozen), adapted()
    pending = digester.start(state, step=0)
    jax.block_until_ready(pending)
    state["w"].delete()
    pending.result()
    assert len(frozen) == 0


def test_replicas_are_read_again_where_they_are_compared(digester: FrozenAside, inner: Counting):
    state = adapted()
    for _ in range(2):
        digester.start(state, step=1, every_replica=True).result()
    assert inner.hashed == [2, 2]


def test_what_is_remembered_of_another_algorithm_is_refused():
    with pytest.raises(AnhError, match="remembered in sha256; use it, not blake3"):
        FrozenAside(DeviceDigest("blake3"), FrozenTops("sha256"))


def test_several_processes_are_refused_for_what_one_knows_the_other_may_not(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(AnhError, match="one process only"):
        FrozenAside(DeviceDigest(), FrozenTops())
