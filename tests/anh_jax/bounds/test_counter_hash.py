"""Bits follow from seed, name, loop iterations and element, and from nothing else."""

import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.bounds.counter_hash import random_bits, seed_of, signed_unit, stream, substream, unit
from anh_jax.errors import ProgramError

COUNT = 65536


def bits(seed: int, name: str, *iterations: int) -> np.ndarray:
    return np.asarray(random_bits(stream(seed_of(seed), name, iterations), (COUNT,)))


def test_same_seed_name_and_iterations_give_the_same_bits() -> None:
    assert np.array_equal(bits(7, "main/3", 1), bits(7, "main/3", jnp.uint32(1)))


@pytest.mark.parametrize(
    "other",
    [
        bits(8, "main/3", 1, 2),
        bits(7, "main/4", 1, 2),
        bits(7, "main/3", 2, 1),
        bits(7, "main/3", 1),
        bits(7 + 2**40, "main/3", 1, 2),
    ],
    ids=["seed", "name", "order of loops", "depth", "high word"],
)
def test_other_streams_share_nothing(other: np.ndarray) -> None:
    own = bits(7, "main/3", 1, 2)
    assert abs(np.corrcoef(own, other)[0, 1]) < 5 / COUNT**0.5
    # Neither element by element nor shifted: two sets of random words meet about once here.
    assert len(np.intersect1d(own, other)) < 12


def test_each_bit_is_one_half_of_the_time() -> None:
    words = bits(1, "main/0")
    share = ((words[:, None] >> np.arange(32, dtype=np.uint32)) & 1).mean(axis=0)
    assert np.all(np.abs(share - 0.5) < 5 * 0.5 / COUNT**0.5)


def test_neighbouring_elements_are_uncorrelated() -> None:
    values = np.asarray(signed_unit(stream(seed_of(1), "main/0", ()), (COUNT,)))
    for shift in (1, 2, 256):
        assert abs(np.corrcoef(values, np.roll(values, shift))[0, 1]) < 5 / COUNT**0.5


def test_element_is_its_place_in_row_major_order() -> None:
    source = stream(seed_of(3), "main/0", ())
    flat = np.asarray(random_bits(source, (24,)))
    assert np.array_equal(np.asarray(random_bits(source, (2, 1, 12))).ravel(), flat)
    assert not np.array_equal(np.asarray(random_bits(substream(source, 0), (24,))), flat)


def test_uniform_numbers_keep_to_their_interval_and_signed_ones_are_never_zero() -> None:
    source = stream(seed_of(3), "main/0", ())
    signed, positive = (np.asarray(f(source, (COUNT,)), np.float64) for f in (signed_unit, unit))
    assert np.all(signed != 0) and np.abs(signed).max() < 1
    assert positive.min() >= 0 and positive.max() < 1
    assert abs(signed.mean()) < 5 * 3**-0.5 / COUNT**0.5
    assert abs(signed.var() - 1 / 3) < 0.01


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_that_is_no_64_bit_number_is_refused(seed: int) -> None:
    with pytest.raises(ProgramError, match="64 bits"):
        seed_of(seed)
