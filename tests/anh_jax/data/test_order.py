"""The order of examples: golden vectors, the rule read a second time, and its randomness."""

import hashlib
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anh_jax.data import order
from anh_jax.data.order import examples_for_step, permute
from anh_jax.errors import DataError

WORDS = st.integers(0, 2**64 - 1)


def as_documented(i: int, *, seed: int, epoch: int, n: int) -> int:
    """Permute one position by the words of the module's docstring, one integer at a time."""
    h = max(1, -(-(n - 1).bit_length() // 2))
    while True:
        left, right = i >> h, i % 2**h
        for r in range(10):
            words = b"".join(word.to_bytes(8, "little") for word in (seed, epoch, r, right))
            digest = hashlib.sha256(b"anh v1 order" + b"\x00" + words).digest()
            left, right = right, left ^ (int.from_bytes(digest[:8], "little") % 2**h)
        i = left * 2**h + right
        if i < n:
            return i


def whole(n: int, *, seed: int = 0, epoch: int = 0) -> list[int]:
    return permute(np.arange(n), seed=seed, epoch=epoch, n=n).tolist()


GOLDEN_FIRST = [
    (0, 0, 1, [0]),
    (0, 0, 2, [1, 0]),
    (1, 0, 10, [7, 6, 4, 5, 0, 3, 1, 8, 2, 9]),
    (0, 1, 10, [5, 6, 3, 1, 9, 2, 7, 8, 0, 4]),
    (2**64 - 1, 2**64 - 1, 17, [4, 5, 9, 15, 7, 14, 12, 3]),
    (0, 0, 1797, [911, 1206, 349, 884, 317, 1344, 1408, 420]),
    (123, 45, 10**6, [399539, 372099, 133513, 176019, 213909, 278591]),
    (0, 7, 10**8, [9806415, 94785530, 51780082, 15103154, 35646796]),
    (9, 9, 2**40, [788778442069, 438078799457, 496233652823, 396292906265]),
    (0, 0, 2**62, [1529110548191538119, 3102801214498361997, 2937229544524079532]),
]
GOLDEN_STEP = [
    (0, 1, 8, 1797, [911, 1206, 349, 884, 317, 1344, 1408, 420]),
    (0, 300, 8, 1438, [1089, 994, 78, 962, 974, 390, 776, 586]),
    (5, 2, 6, 10, [6, 4, 3, 9, 2, 7]),
    (5, 3, 7, 3, [0, 2, 0, 1, 1, 0, 2]),
]
GOLDEN_DIGEST = "3c746d73a5fd5a4a3d60e2cab65a318f272997e879dae3963f33a79c6aab371a"


@pytest.mark.parametrize(("seed", "epoch", "n", "first"), GOLDEN_FIRST)
def test_golden_vector_of_the_permutation(seed: int, epoch: int, n: int, first: list[int]) -> None:
    positions = np.arange(len(first))
    assert permute(positions, seed=seed, epoch=epoch, n=n).tolist() == first


@pytest.mark.parametrize(("seed", "step", "batch_size", "n", "examples"), GOLDEN_STEP)
def test_golden_vector_of_a_step(
    seed: int, step: int, batch_size: int, n: int, examples: list[int]
) -> None:
    found = examples_for_step(seed, step, batch_size, n)
    assert found.dtype == np.int64
    assert found.tolist() == examples


def test_golden_digest_of_a_whole_epoch() -> None:
    order_of_epoch = permute(np.arange(1797), seed=0, epoch=0, n=1797).astype("<i8")
    assert hashlib.sha256(order_of_epoch.tobytes()).hexdigest() == GOLDEN_DIGEST


@settings(deadline=None)
@given(seed=WORDS, epoch=WORDS, n=st.integers(1, 700))
def test_each_example_occurs_once_in_an_epoch(seed: int, epoch: int, n: int) -> None:
    assert sorted(whole(n, seed=seed, epoch=epoch)) == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 1797, 4096, 65537])
def test_small_power_and_prime_sizes_are_permuted_whole(n: int) -> None:
    assert sorted(whole(n, seed=7, epoch=1)) == list(range(n))


@settings(deadline=None)
@given(seed=WORDS, epoch=WORDS, n=st.integers(1, 2**62), share=st.floats(0, 1, exclude_max=True))
def test_any_position_is_permuted_as_documented(
    seed: int, epoch: int, n: int, share: float
) -> None:
    # Above 2^28 nothing is tabulated; below, tables of at most 2^7 keep this test quick.
    n = n if n > 2**28 else 1 + n % 2**14
    i = min(int(share * n), n - 1)
    found = permute(np.array([i]), seed=seed, epoch=epoch, n=n)
    assert found.tolist() == [as_documented(i, seed=seed, epoch=epoch, n=n)]


def test_tabulated_and_hashed_round_functions_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = np.arange(0, 10**6, 9973)
    tabulated = permute(positions, seed=5, epoch=3, n=10**6)
    monkeypatch.setattr(order, "_MAX_TABLE_BITS", 0)
    assert permute(positions, seed=5, epoch=3, n=10**6).tolist() == tabulated.tolist()


def test_kept_epoch_and_random_access_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [examples_for_step(3, step, 50, 333).tolist() for step in range(1, 20)]
    monkeypatch.setattr(order, "_MAX_KEPT_EPOCH", 0)
    assert [examples_for_step(3, step, 50, 333).tolist() for step in range(1, 20)] == kept


@settings(deadline=None)
@given(seed=WORDS, n=st.integers(1, 50), batch_size=st.integers(1, 120), first=st.integers(1, 1000))
def test_steps_walk_the_epochs_without_gap_or_padding(
    seed: int, n: int, batch_size: int, first: int
) -> None:
    found = examples_for_step(seed, first, batch_size, n).tolist()
    start = (first - 1) * batch_size
    epochs = {p // n: whole(n, seed=seed, epoch=p // n) for p in range(start, start + batch_size)}
    assert found == [epochs[p // n][p % n] for p in range(start, start + batch_size)]


def test_epochs_and_seeds_give_unlike_orders() -> None:
    base = whole(1000)
    for other in (whole(1000, epoch=1), whole(1000, seed=1), whole(1000, seed=2**32)):
        same = sum(a == b for a, b in zip(base, other, strict=True))
        assert same < 10  # 1 is expected; 10 or more has odds under 1 in 10^7


def test_all_orders_of_four_examples_occur_about_equally_often() -> None:
    counts = Counter(tuple(whole(4, epoch=epoch)) for epoch in range(2400))
    assert len(counts) == 24
    chi_squared = sum((count - 100) ** 2 / 100 for count in counts.values())
    assert chi_squared < 58  # 23 degrees of freedom: exceeded with odds of 1 in 10^4


def test_random_access_into_ten_to_the_eight_is_quick() -> None:
    n, batch_size = 10**8, 256
    examples_for_step(0, 1, batch_size, n)  # makes the epoch's tables, once
    clock = time.perf_counter()
    found = np.concatenate([examples_for_step(0, step, batch_size, n) for step in range(2, 102)])
    assert (time.perf_counter() - clock) / 100 < 0.05
    assert len(set(found.tolist())) == len(found)
    assert found.min() >= 0 and found.max() < n


@pytest.mark.parametrize(
    ("seed", "step", "batch_size", "n"),
    [(0, 0, 1, 1), (0, 1, 0, 1), (0, 1, 1, 0), (-1, 1, 1, 1), (2**64, 1, 1, 1), (0, 1, 1, 2**63)],
)
def test_step_outside_the_rule_is_refused(seed: int, step: int, batch_size: int, n: int) -> None:
    with pytest.raises(DataError):
        examples_for_step(seed, step, batch_size, n)


@pytest.mark.parametrize("position", [-1, 10])
def test_position_outside_the_epoch_is_refused(position: int) -> None:
    with pytest.raises(DataError, match="outside"):
        permute(np.array([position]), seed=0, epoch=0, n=10)
