"""Partial sums of a scatter count as they do on average over all orders of its updates."""

import itertools

import jax.numpy as jnp
import numpy as np

from anh_jax.bounds.roundoff_hook import chained, partial_sums


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
    assert chained(1) < 1.01
    assert np.isclose(chained(768), 2)
