"""Rates measured in a moment: amounts over the seconds that a clock tells."""

import itertools
import os

import pytest

from anh_jax.digest import host_rates
from anh_jax.digest.host_rates import measure_host, measure_products


@pytest.fixture
def every_work_takes_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 2)
    monkeypatch.setattr(host_rates.time, "process_time", lambda: next(clock))


def test_rates_are_amounts_over_seconds(every_work_takes_two_seconds: None) -> None:
    rates = measure_host("blake3")
    assert rates.digest == rates.sha256 == (16 << 20) / 2
    assert rates.small_tensor == 2 / 128
    assert rates.signature == 2
    assert measure_products() == len(os.sched_getaffinity(0)) * 2 * 1024**3 / 2


def test_the_algorithm_asked_for_is_the_one_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(host_rates, "tree_digest", lambda *_, alg, **__: seen.append(alg))
    measure_host("sha256")
    assert set(seen) == {"sha256"}
