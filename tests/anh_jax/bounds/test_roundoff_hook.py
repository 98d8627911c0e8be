"""Noise stands at what rounds, and a scatter's partial sums count as on average over orders."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.bounds.noise import OFF, ON, MonteCarlo
from anh_jax.bounds.roundoff_hook import chained, partial_sums
from anh_jax.program.interpret import read_stored
from attest.numerics_class import CLASSES
from tests.anh_jax.program.interpreter.families import exported
from tests.anh_jax.program.interpreter.symbolic import SYMBOLIC
from tests.anh_jax.program.interpreter.written import WRITTEN


def test_partial_sums_are_the_mean_over_all_orders() -> None:
    updates = np.array([3.0, -1.0, 2.0, 0.5, 1.5, -2.5], np.float32)
    squares = [
        np.sum(np.cumsum(np.array(order, np.float64)) ** 2)
        for order in itertools.permutations(updates)
    ]
    found = partial_sums(lambda x: jnp.sum(x, keepdims=True), updates)
    # The formula drops terms of relative size 1 / n.
    assert np.isclose(float(found[0]), np.sqrt(np.mean(squares)), rtol=0.35)
    many = np.random.default_rng(0).normal(1, 1, 400).astype(np.float32)
    exact = [
        np.sum(np.cumsum(np.random.default_rng(i).permutation(many).astype(np.float64)) ** 2)
        for i in range(200)
    ]
    found = partial_sums(lambda x: jnp.sum(x, keepdims=True), many)
    assert np.isclose(float(found[0]), np.sqrt(np.mean(exact)), rtol=0.02)


def test_element_with_one_update_has_no_partial_sum() -> None:
    place = jnp.array([0, 2, 2])
    updates = jnp.array([5.0, 1.0, 1.0])
    found = partial_sums(lambda x: jnp.zeros(4).at[place].add(x), updates)
    assert found[0] == 0 and found[1] == 0 and found[2] > 0


def test_long_sums_count_their_chains() -> None:
    assert chained(0) == chained(1) == 1
    assert np.isclose(chained(7) ** 2, 2)
    # A float32 sum of 768 numbers of random sign, added up one after the other, against float64.
    random = np.random.default_rng(0)
    terms = random.normal(size=(400, 768)).astype(np.float32)
    sums = np.cumsum(terms, axis=1, dtype=np.float32)[:, -1].astype(np.float64)
    error = np.sqrt(np.mean((sums - terms.astype(np.float64).sum(1)) ** 2))
    # What the model says of partial sums, each rounded evenly within half a unit.
    partial = 2.0**-24 * np.sqrt(768 * (chained(768) ** 2 - 1))
    assert 0.25 * partial < error < partial
    # Nobody adds a million numbers one after the other.
    assert chained(10**6) < 2 * chained(768)


# Programs whose results are moved numbers, comparisons or bits.
EXACT = ("index vectors first", "between numbers", "halves of words", "total order")
FEW = ("if, true", "transposed maximum", *EXACT)
BY_HAND = [pytest.param(name, marks=[] if name in FEW else [pytest.mark.full]) for name in WRITTEN]


@pytest.mark.parametrize("name", BY_HAND)
def test_noise_moves_what_an_operator_rounds_and_nothing_else(name: str) -> None:
    stored, arguments = WRITTEN[name].stored(), WRITTEN[name].arguments
    assert_noise(stored, arguments, {"00"} if name in EXACT else set())


@pytest.mark.full
def test_noise_moves_what_operators_of_unknown_size_round() -> None:
    for name, (function, arguments) in SYMBOLIC.items():
        stored, _, _ = exported(function, arguments)
        exact = {
            "cumulative": {"02"},
            **dict.fromkeys(("take a column", "slice of all rows", "sorted", "largest"), {"00"}),
            "placed": {"00"},  # times two
        }
        assert_noise(stored, arguments, exact.get(name, set()))


def assert_noise(stored, arguments, exact) -> None:
    program = read_stored(stored)

    def outputs(amplitude: int, seed: int) -> dict[str, np.ndarray]:
        words = jnp.array([seed, 2], jnp.uint32)
        around = MonteCarlo(CLASSES["f32"], words, jnp.uint32(amplitude))
        return {k: np.asarray(x) for k, x in program(*arguments, around=around).items()}

    plain, off, on, again = program(*arguments), outputs(OFF, 1), outputs(ON, 1), outputs(ON, 1)
    for key, value in plain.items():
        assert off[key].tobytes() == np.asarray(value).tobytes()
        assert on[key].tobytes() == again[key].tobytes()
        if key in exact:
            assert on[key].tobytes() == np.asarray(value).tobytes()
        else:
            moved = np.abs(on[key] - np.asarray(value)).max() / np.abs(value).max()
            assert 2.0**-25 < moved < 2.0**-18
