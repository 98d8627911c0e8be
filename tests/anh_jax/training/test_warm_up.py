"""What is computed before genesis and thrown away: does it repeat, and is state 0 still state 0."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.digest.digester import HostDigest
from anh_jax.errors import AnhError
from anh_jax.training.executor import Executor
from anh_jax.training.loop import StepBatch
from anh_jax.training.warm_up import REPLAYS, drawn_again, measure, replay_gradient

DIGESTER = HostDigest()
BATCH = StepBatch(1, (), "batch")


class Wobbly(Executor):
    """Adds `wobble` to each next gradient, and to each next state 0."""

    def __init__(self, wobble: float) -> None:
        self._wobble = wobble
        self._count = 0
        self._update = jax.jit(lambda state, part: state + part, donate_argnums=0)

    def _next(self) -> jax.Array:
        self._count += 1
        return jnp.float32(self._wobble * self._count) + jnp.zeros(4, jnp.float32)

    def initial_state(self, seed: int) -> Any:
        return {"w": self._next()}

    def gradient(self, state: Any, pieces: Any) -> Any:
        return {"gradient": {"w": self._next()}, "statistics": {}, "loss": jnp.float32(0)}

    def scalars(self, outputs: Any) -> Any:
        return {}

    def update(self, state: Any, outputs: Any, scalars: Any, step: int) -> Any:
        return {"w": self._update(state["w"], outputs["gradient"]["w"])}


def root_of(state: Any) -> str:
    return DIGESTER.start(state, step=0).result().root.hex()


@pytest.mark.parametrize(("wobble", "words"), [(0.0, "equal"), (1.0, "different")])
def test_a_gradient_that_comes_out_otherwise_is_noticed(wobble: float, words: str) -> None:
    executor = Wobbly(wobble)
    state = executor.initial_state(0)
    replays = replay_gradient(executor, DIGESTER, state, BATCH)
    assert replays.words == words
    assert measure(executor, DIGESTER, state, replays).repeats is (words == "equal")


def test_measuring_takes_the_buffers_as_a_step_does_and_keeps_no_copy() -> None:
    executor = Wobbly(0.0)
    state = executor.initial_state(0)
    replays = replay_gradient(executor, DIGESTER, state, BATCH)
    measured = measure(executor, DIGESTER, state, replays)
    assert state["w"].is_deleted()
    assert measured.step_seconds > 0
    assert min(measured.state_seconds, measured.gradient_seconds, measured.signature_seconds) > 0
    assert REPLAYS % 2 == 1  # a median that is one of the measurements


def test_the_state_drawn_again_is_the_one_that_genesis_names() -> None:
    executor = Wobbly(0.0)
    root = root_of(executor.initial_state(0))
    state = drawn_again(executor, DIGESTER, seed=0, root=root)
    np.testing.assert_array_equal(state["w"], np.zeros(4))


def test_an_init_that_draws_two_states_is_refused() -> None:
    executor = Wobbly(1.0)
    root = root_of(executor.initial_state(0))
    with pytest.raises(AnhError, match="init: drew state 0 twice and got two states"):
        drawn_again(executor, DIGESTER, seed=0, root=root)
