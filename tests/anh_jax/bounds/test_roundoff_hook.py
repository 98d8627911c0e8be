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
