"""Honest variants count only where they are proven to round otherwise."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from anh_jax.data.sources import Source
from anh_jax.errors import DataError
from anh_jax.redteam import executors, honest
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.executors import VARIANTS, Variant, variant_of
from anh_jax.redteam.honest_states import honest_states, padding_steps
from anh_jax.redteam.other_data import MovedPadding
from anh_jax.redteam.victims import PADDING_STEP
from anh_jax.run_directory import RunDirectory
from anh_jax.training.retained_steps import RetainedSteps


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


def in_process(folder: Any, variant: Variant, batch: int) -> str:
    """Compute in this process what a child would."""
    executors.compute_all(folder, variant)
    return ""


@pytest.fixture(scope="module")
def padded_bench(bench: RedTeamBench) -> RedTeamBench:
    return MovedPadding().victim_at(bench)


def test_step_of_padding_alone_moves_nothing_and_is_refused_by_nobody(
    padded_bench: RedTeamBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert padding_steps(padded_bench) == (PADDING_STEP,)
    monkeypatch.setattr(honest, "_compute", in_process)
    chosen = [variant_of("op-by-op")]
    found = honest.count_honest(padded_bench, rounds=1, told=quiet, variants=chosen)
    assert found.refused == () and found.uncovered == 0
    states = found.by_state()
    assert set(states) == {"cold", "warm", "spike", "padding", "spiked padding"}
    # The gradient is zero whoever computes it: at best the update tells them apart.
    padding = [r for r in (*found.replays, *found.inert) if "padding" in r.state]
    assert len(padding) == 2 and all(r.changed == 0 for r in padding)


def test_half_padded_batch_comes_before_the_padded_one(padded_bench: RedTeamBench) -> None:
    labels = np.asarray(padded_bench.piece(PADDING_STEP - 1)["label"])
    half = len(labels) // 2
    assert (labels[:half] == -1).all() and (labels[half:] >= 0).all()


def test_unpadded_contract_has_no_step_of_padding(bench: RedTeamBench) -> None:
    assert padding_steps(bench) == ()
    assert [s.name for s in honest_states(bench, 3)] == ["cold 3", "warm 3", "spike 3"]


def test_replay_whose_update_alone_differs_counts_and_a_refused_inert_one_shows() -> None:
    moved = honest.Replay("sse4.2", "padding 0", "pass", 0.5, 0.0, 0.0, "", updated=0.1)
    still = honest.Replay("permuted", "padding 0", "refuted", 2.0, 2.0, 0.0, "A = 2")
    assert (moved.inert, still.inert) == (False, True)
    found = honest.HonestCount((moved,), (still,), {})
    assert (found.n, found.false_rejects, found.refused) == (1, 0, (still,))
    assert found.document()["inert_rejects"] == 1
    assert found.by_state() == {"padding": {"n": 1, "false_rejects": 1, "inert": 1}}
    assert any("permuted at padding 0" in line for line in found.lines())


def handed_over(bench: RedTeamBench, folder: Any, source: Source) -> Any:
    """Write what a child reads: the contract, data and a state."""
    run = RunDirectory.create(folder)
    bench.prepared.write(run)
    executors.write_data(run.root, source)
    state = bench.initial_state()
    outputs = bench.gradient(state, bench.piece(1))
    RetainedSteps(run.root / executors.BEFORE).save(1, outputs, state)
    return run.root


def test_child_computes_from_the_data_that_come_with_the_states(
    bench: RedTeamBench, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = handed_over(bench, tmp_path / "run", bench.materials.source)

    def gone(*given: Any) -> Any:
        raise AssertionError("the source of the parent is not asked")

    monkeypatch.setattr("anh_jax.workbench.load_source", gone)
    executors.compute_all(run, Variant("as-stored"))
    again = RetainedSteps(run / "as-stored").outputs(1, bench.workbench.abstract_outputs())
    outputs = bench.gradient(bench.initial_state(), bench.piece(1))
    assert honest.changed_share(outputs["gradient"], again["gradient"]) == 0


def test_other_data_than_the_contract_s_stop_the_child(bench: RedTeamBench, tmp_path: Any) -> None:
    own = bench.materials.source
    other = {**own.train, "label": np.roll(own.train["label"], 1)}
    run = handed_over(bench, tmp_path / "run", dataclasses.replace(own, train=other))
    with pytest.raises(DataError):
        executors.compute_all(run, Variant("as-stored"))
