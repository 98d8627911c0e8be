"""Honest variants count only where they are proven to round otherwise."""

from typing import Any

import pytest

from anh_jax.redteam import honest
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.executors import VARIANTS, Variant, variant_of


def quiet(line: str) -> None:
    """Take a line and say nothing."""


def test_variant_with_changed_bits_passes_and_one_without_does_not_count(
    bench: RedTeamBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = Variant("same-as-ours")
    chosen = [variant_of("microbatch-2"), same]
    monkeypatch.setattr("anh_jax.redteam.executors.VARIANTS", (*VARIANTS, same))
    real = honest._compute  # pyright: ignore[reportPrivateUsage]

    def compute(folder: Any, variant: Variant, batch: int) -> str:
        if variant is not same:
            return real(folder, variant, batch)
        from anh_jax.redteam.executors import compute_all

        compute_all(folder, variant)
        return ""

    monkeypatch.setattr(honest, "_compute", compute)
    found = honest.count_honest(bench, rounds=1, told=quiet, variants=chosen)
    assert {replay.variant for replay in found.replays} == {"microbatch-2"}
    assert {replay.variant for replay in found.inert} == {"same-as-ours"}
    assert found.false_rejects == 0 and found.n == 3
    assert all(0 < replay.changed <= 1 for replay in found.replays)
    assert found.document()["independent_states"] == 3


def test_false_reject_shows_in_the_count() -> None:
    bad = honest.Replay("permuted", "cold 0", "refuted", 2.0, 2.0, 0.5, "A = 2")
    good = honest.Replay("permuted", "warm 0", "pass", 0.5, 0.3, 0.5, "")
    found = honest.HonestCount((bad, good), (), {})
    assert (found.n, found.false_rejects) == (2, 1)
    document = found.document()
    assert document["false_rejects"] == 1
    assert (document["margin"], document["gradient_margin"]) == (2.0, 2.0)
    assert "1 of 2 replays refused" in found.lines()[0]


def test_variant_that_cannot_run_is_named(bench: RedTeamBench, tmp_path: Any) -> None:
    fault = honest._compute(tmp_path, variant_of("devices-8"), 49)  # pyright: ignore[reportPrivateUsage]
    assert "does not divide" in fault


@pytest.mark.full
def test_no_honest_variant_is_refuted(bench: RedTeamBench) -> None:
    found = honest.count_honest(bench, rounds=10, told=quiet)
    assert found.n >= 300
    assert found.false_rejects == 0, found.lines()
