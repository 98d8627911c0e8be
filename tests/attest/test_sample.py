import hashlib
import inspect
import math
import secrets
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest import sample
from attest.envelope import Envelope, Signature
from attest.errors import RefusedError
from attest.sample import commitment, miss_probability, sample_steps, single_escape

RUN = bytes(range(32))
FINAL = bytes(range(32, 64))
NONCES = {"b" * 64: b"\x22" * 32, "a" * 64: b"\x11" * 32}


def plain_sample(run: bytes, final: bytes, nonces: list[bytes], total: int, k: int) -> list[int]:
    """Follow the protocol's sentence word for word, on one long prefix of the stream."""
    beacon = b"anh v1 sample" + b"\x00" + run + final + b"".join(nonces)
    stream = hashlib.shake_256(beacon).digest(8 * (200 + 60 * k))
    steps: list[int] = []
    for at in range(0, len(stream), 8):
        word = sum(byte << 8 * i for i, byte in enumerate(stream[at : at + 8]))
        if word >= 2**64 // total * total:
            continue
        if word % total + 1 not in steps:
            steps.append(word % total + 1)
        if len(steps) == k:
            return steps
    raise AssertionError("prefix too short")


def test_known_sample() -> None:
    # The words come from `openssl dgst -shake256 -xoflen 256` over the same bytes.
    assert sample_steps(RUN, FINAL, NONCES, 10_000, 6) == (4852, 5677, 6704, 2228, 8997, 7609)
    assert sample_steps(RUN, FINAL, {}, 10_000, 6) == (461, 4502, 6493, 9923, 1336, 9985)


def test_known_commitment() -> None:
    # `openssl dgst -sha256` over "anh v1 nonce", a zero byte and 32 zero bytes.
    assert commitment(bytes(32)).hex() == (
        "dc5a6f6c11b3bba65f9aa137844c5c09315262d5a8c7d26c79401607d5ce1bc6"
    )


HASHES = st.binary(min_size=32, max_size=32)


@settings(deadline=None)
@given(HASHES, HASHES, st.lists(HASHES, max_size=3), st.integers(2, 2**53), st.integers(1, 20))
def test_the_sample_is_the_protocols(
    run: bytes, final: bytes, nonces: list[bytes], total: int, k: int
) -> None:
    k = min(k, total - 1)
    named = {f"{i:064x}": nonce for i, nonce in enumerate(nonces)}
    steps = sample_steps(run, final, named, total, k)
    assert list(steps) == plain_sample(run, final, nonces, total, k)
    assert len(set(steps)) == k
    assert all(1 <= step <= total for step in steps)


def test_the_order_of_the_mapping_does_not_matter() -> None:
    turned = dict(reversed(NONCES.items()))
    assert list(turned) != list(NONCES)
    assert sample_steps(RUN, FINAL, turned, 500, 9) == sample_steps(RUN, FINAL, NONCES, 500, 9)


def test_each_source_and_each_record_changes_the_sample() -> None:
    base = sample_steps(RUN, FINAL, NONCES, 10**6, 5)
    a, b = NONCES.values()
    samples = {
        base,
        sample_steps(FINAL, RUN, NONCES, 10**6, 5),
        sample_steps(RUN, FINAL, {"a" * 64: a}, 10**6, 5),
        sample_steps(RUN, FINAL, {"a" * 64: a, "b" * 64: b}, 10**6, 5),
        sample_steps(RUN, FINAL, {}, 10**6, 5),
    }
    assert len(samples) == 5


def test_a_longer_sample_begins_with_the_shorter() -> None:
    long = sample_steps(RUN, FINAL, NONCES, 1000, 300)
    for k in (1, 2, 10, 100):
        assert sample_steps(RUN, FINAL, NONCES, 1000, k) == long[:k]


def test_asking_for_every_step_gives_every_step() -> None:
    assert sample_steps(RUN, FINAL, NONCES, 5, 5) == (1, 2, 3, 4, 5)
    assert sorted(sample_steps(RUN, FINAL, NONCES, 50, 49))[0] in (1, 2)
    assert sample_steps(RUN, FINAL, {}, 1, 1) == (1,)


def test_the_beacon_takes_records_and_nonces_and_nothing_else() -> None:
    names = list(inspect.signature(sample_steps).parameters)
    assert names == ["run", "final_record", "nonces_by_keyid", "total_steps", "k"]


def test_ten_thousand_signatures_of_the_final_record_give_one_sample() -> None:
    samples = set()
    leaves = set()
    for _ in range(10_000):
        signature = Signature(secrets.token_hex(32), secrets.token_bytes(64))
        envelope = Envelope(b'{"final":1}', (signature,))
        leaves.add(envelope.signatures)
        samples.add(sample_steps(RUN, envelope.record_hash(), NONCES, 10_000, 2))
    assert len(leaves) == 10_000
    assert len(samples) == 1


def test_words_past_the_largest_multiple_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2^64 = 184467440737095516 * 100 + 16: the last 16 words would favour steps 1..16.
    limit = 2**64 - 16
    words = [limit, 2**64 - 1, limit + 15, limit - 1, 5, limit - 1, 7]
    monkeypatch.setattr(sample, "_words", lambda seed, count: iter(words))
    assert sample_steps(RUN, FINAL, {}, 100, 3) == (100, 6, 8)


def test_no_word_is_rejected_where_the_total_divides_the_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sample, "_words", lambda seed, count: iter([2**64 - 1, 0]))
    assert sample_steps(RUN, FINAL, {}, 2**10, 2) == (2**10, 1)


def test_rejection_is_exercised_by_a_large_total() -> None:
    # Half of all words are at or above the only multiple of 2^63 + 1.
    total = 2**63 + 1
    steps = sample_steps(RUN, FINAL, NONCES, total, 20)
    assert list(steps) == plain_sample(RUN, FINAL, [b"\x11" * 32, b"\x22" * 32], total, 20)


def test_steps_are_drawn_uniformly() -> None:
    total, draws = 20, 8000
    counts = Counter(
        step
        for i in range(draws)
        for step in sample_steps(RUN, i.to_bytes(32, "big"), {}, total, 3)
    )
    expected = draws * 3 / total
    chi_square = sum((counts[s] - expected) ** 2 / expected for s in range(1, total + 1))
    # 19 degrees of freedom: more than 43.8 happens once in a thousand; the draw is fixed.
    assert chi_square < 43.8


@pytest.mark.parametrize(("total", "k"), [(10, 0), (10, 11), (0, 0), (10, -1), (2**64, 1), (-5, 1)])
def test_an_impossible_sample_is_refused(total: int, k: int) -> None:
    with pytest.raises(RefusedError) as refusal:
        sample_steps(RUN, FINAL, {}, total, k)
    assert refusal.value.check == "sample"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_wrong_lengths_are_refused(length: int) -> None:
    short = bytes(length)
    for arguments in ((short, FINAL, {}), (RUN, short, {}), (RUN, FINAL, {"a": short})):
        with pytest.raises(RefusedError):
            sample_steps(*arguments, 10, 1)
    with pytest.raises(RefusedError):
        commitment(short)


def exact(total: int, bad: int, k: int) -> Fraction:
    """Multiply the chances of k draws without replacement, each missing."""
    chance = Fraction(1)
    for i in range(k):
        chance *= Fraction(max(total - bad - i, 0), total - i)
    return chance


def test_miss_probability_is_exact_for_every_small_case() -> None:
    for total in range(1, 16):
        for bad in range(total + 1):
            for k in range(total + 1):
                got = miss_probability(total, Fraction(bad, total), k)
                assert got == float(exact(total, bad, k)), (total, bad, k)


def test_the_protocols_example() -> None:
    # T = 10,000, f = 1 %, k = 459: 0.889 %. (With replacement it would be 0.99^459 = 0.992 %.)
    assert miss_probability(10_000, 0.01, 459) == float(exact(10_000, 100, 459))
    assert miss_probability(10_000, 0.01, 459) == pytest.approx(0.00889153415600916, rel=1e-14)
    assert miss_probability(10_000, 0.01, 459) < 0.99**459 < 0.01
    assert miss_probability(10_000, 0.01, 448) < 0.01 < miss_probability(10_000, 0.01, 447)
    assert single_escape(10_000, 459) == 0.9541


def test_a_bad_fraction_means_its_shortest_decimal() -> None:
    # In binary64, 0.07 * 100 is above 7: eight bad steps would understate the miss.
    assert math.ceil(0.07 * 100) == 8
    assert miss_probability(100, 0.07, 10) == float(exact(100, 7, 10))
    assert miss_probability(100, 0.071, 10) == float(exact(100, 8, 10))


@given(st.integers(3000, 20_000), st.floats(0, 0.5), st.integers(0, 4000))
@settings(deadline=None, max_examples=40)
def test_the_long_product_agrees_with_exact_integers(total: int, fraction: float, k: int) -> None:
    k = min(k, total)
    bad = math.ceil(Fraction(repr(fraction)) * total)
    expected = math.comb(total - bad, k) / math.comb(total, k)
    assert miss_probability(total, fraction, k) == pytest.approx(expected, rel=1e-11, abs=1e-300)


def test_a_million_steps_are_stable() -> None:
    # More than 2048 of both, so computed by logarithms; compared with exact integers.
    for bad, k in ((3000, 2500), (5000, 4000), (2500, 60_000), (950_000, 100_000)):
        got = miss_probability(10**6, Fraction(bad, 10**6), k)
        few, many = sorted((bad, k))
        expected = 0.0
        if few + many <= 10**6:
            expected = math.comb(10**6 - many, few) / math.comb(10**6, few)
        assert got == pytest.approx(expected, rel=1e-11, abs=1e-300)


def test_miss_probability_falls_with_every_step_sampled() -> None:
    chances = [miss_probability(10_000, 0.001, k) for k in range(0, 10_001, 200)]
    assert chances[0] == 1
    assert chances == sorted(chances, reverse=True)
    assert chances[-1] == 0


@pytest.mark.parametrize(
    ("total", "fraction", "k"),
    [
        (10, 0.1, 11),
        (10, 0.1, -1),
        (10, 1.1, 1),
        (10, -0.1, 1),
        (0, 0.1, 0),
        (10, Fraction(3, 2), 1),
    ],
)
def test_out_of_range_questions_are_refused(total: int, fraction: float, k: int) -> None:
    with pytest.raises(RefusedError):
        miss_probability(total, fraction, k)


@pytest.mark.parametrize("fraction", [math.nan, math.inf])
def test_a_fraction_that_is_no_number_is_refused(fraction: float) -> None:
    with pytest.raises(RefusedError):
        miss_probability(10, fraction, 1)


def test_single_escape_counts_one_bad_step() -> None:
    for total, k in ((1, 0), (1, 1), (7, 3), (10**4, 9_999)):
        assert single_escape(total, k) == float(exact(total, 1, k))
    for total, k in ((10, 11), (10, -1), (0, 0)):
        with pytest.raises(RefusedError):
            single_escape(total, k)


def test_a_hopeless_product_is_not_multiplied_to_its_end() -> None:
    # 10^9 factors; after some 80,000 of them the product is zero in binary64.
    assert miss_probability(2**53 - 1, 0.01, 10**9) == 0.0


def test_more_bad_steps_than_can_be_avoided_are_never_missed() -> None:
    # Too many of both for exact integers, and the logarithm of zero on the way.
    assert miss_probability(10_000, 0.9999, 3000) == 0.0
    assert miss_probability(10_000, 1.0, 1) == 0.0
