"""A walk of one unit in the last place passes check B, and neither of the walk tests."""

import numpy as np
import pytest

from anh_jax.bounds.residual import Candidate, nearest_residual
from anh_jax.bounds.walk import PairwiseCosine, walk_of_slot, walk_of_tensor

U = 2.0**-24
SIZE = 20_000


def parameters(seed: int) -> np.ndarray:
    return (0.05 * np.random.default_rng(seed).normal(size=SIZE)).astype(np.float32)


def rounding(seed: int, share: float = 0.1) -> np.ndarray:
    """Return units in the last place as honest compilers leave them: few, with either sign."""
    random = np.random.default_rng(seed)
    return random.choice([-1, 0, 1], size=SIZE, p=[share / 2, 1 - share, share / 2])


def residual(units: np.ndarray, seed: int):
    expected = parameters(seed)
    committed = (expected + units * np.spacing(np.abs(expected))).astype(np.float32)
    before = (expected + np.float32(1e-6)).astype(np.float32)
    return nearest_residual("w", committed, [Candidate(expected, before)], unit_roundoff=U)


def walk(direction: np.ndarray, steps: int) -> PairwiseCosine:
    found = PairwiseCosine()
    for step in range(steps):
        # Rounding stays, the walk is added where it finds room in the tolerance.
        units = np.where(direction != 0, direction, rounding(step))
        found.add({"w": residual(units, step).units})
    return found


def test_walk_everywhere_is_caught_at_one_step() -> None:
    direction = np.sign(parameters(99))
    found = residual(direction, seed=0)
    assert found.worst.accepted
    statistic = walk_of_tensor("w", found.share)
    assert statistic is not None and not statistic.accepted


def test_honest_rounding_is_no_walk_at_one_step() -> None:
    found = walk_of_tensor("w", residual(rounding(1), seed=1).share)
    assert found is not None and found.accepted and found.value > 0


def moments(size: int, seed: int) -> "dict[str, np.ndarray]":
    """Return a second moment before and after a step, with a fused multiply-add and without."""
    random = np.random.default_rng(seed)
    before = (1e-4 * random.random(size)).astype(np.float32)
    square = (np.float32(1e-2) * random.normal(size=size).astype(np.float32)) ** 2
    kept, fresh = np.float32(0.999), np.float32(1 - 0.999)
    term = fresh * square
    # A float64 product of float32 numbers is exact.
    fused = (kept.astype(np.float64) * before + term).astype(np.float32)
    return {"before": before, "fused": fused, "separate": kept * before + term}


@pytest.mark.parametrize("size", [32, 64, 512, 20_000])
def test_moments_without_fused_instructions_are_no_walk(size: int) -> None:
    for seed in range(200 if size < 1000 else 5):
        found = moments(size, seed)
        candidate = Candidate(found["separate"], found["before"])
        share = nearest_residual("v", found["fused"], [candidate], unit_roundoff=U).share
        statistic = walk_of_slot("v", share)
        assert statistic is not None and statistic.accepted
        assert share.any() or size < 64


@pytest.mark.parametrize("size", [128, 20_000])
def test_walk_of_a_slot_is_caught_at_one_step(size: int) -> None:
    found = moments(size, 0)
    walked = np.nextafter(found["fused"], np.float32(np.inf))
    candidate = Candidate(found["fused"], found["before"])
    residual = nearest_residual("v", walked, [candidate], unit_roundoff=U)
    assert residual.worst.accepted
    statistic = walk_of_slot("v", residual.share)
    assert statistic is not None and not statistic.accepted


@pytest.mark.parametrize("steps", [2, 8])
@pytest.mark.parametrize("share", [1.0, 0.1, 0.05])
def test_walk_in_one_direction_is_caught_over_steps(steps: int, share: float) -> None:
    random = np.random.default_rng(5)
    direction = np.sign(parameters(99)) * (random.random(SIZE) < share)
    if share < 1:
        statistic = walk_of_tensor("w", residual(direction, seed=0).share)
        assert statistic is not None and statistic.accepted  # one step alone would not show it
    assert not walk(direction, steps).statistic().accepted


@pytest.mark.parametrize("steps", [2, 3, 8])
def test_honest_rounding_is_no_walk_over_steps(steps: int) -> None:
    for start in range(0, 80, 8):
        found = PairwiseCosine()
        for seed in range(start, start + steps):
            found.add({"w": residual(rounding(seed), seed).units})
        assert found.steps == steps
        assert found.statistic().accepted


def test_small_models_are_not_refuted_by_chance() -> None:
    refuted = 0
    for start in range(200):
        found = PairwiseCosine()
        for seed in (2 * start, 2 * start + 1):
            found.add({"w": rounding(seed)[:300].astype(np.float32)})
        refuted += not found.statistic().accepted
    assert refuted == 0


def test_mean_is_that_over_all_pairs() -> None:
    random = np.random.default_rng(2)
    vectors = [random.normal(size=(6, 5)).clip(-2, 2).astype(np.float32) for _ in range(4)]
    found = PairwiseCosine()
    for vector in vectors:
        found.add({"a": vector[:2], "b": vector[2:]})
    units = [v.ravel() / np.linalg.norm(v) for v in vectors]
    pairs = [float(units[i] @ units[j]) for i in range(4) for j in range(i)]
    assert found.mean() == pytest.approx(np.mean(pairs), abs=1e-6)
    squares = sum(float(np.sum(units[i] ** 2 * units[j] ** 2)) for i in range(4) for j in range(i))
    assert found.deviation() == pytest.approx(np.sqrt(squares) / len(pairs), rel=1e-5)


def test_one_long_residual_does_not_hide_the_others() -> None:
    direction = np.sign(parameters(99))
    found = PairwiseCosine()
    for step in range(2):
        units = direction.copy()
        units[step] = 1e6  # near a zero parameter: honest, and many units long
        found.add({"w": units})
    assert not found.statistic().accepted


def test_step_without_a_residual_has_no_direction() -> None:
    found = PairwiseCosine()
    found.add({"w": np.zeros(SIZE)})
    found.add({"w": rounding(0)})
    assert (found.steps, found.mean()) == (1, 0.0)


def test_residual_that_is_not_a_number_counts_for_nothing() -> None:
    found = PairwiseCosine()
    found.add({"w": np.full(SIZE, np.nan)})
    assert found.steps == 0


def test_small_tensor_has_no_average() -> None:
    assert walk_of_tensor("w", np.ones(31)) is None
    assert walk_of_tensor("w", np.ones(32)) is not None
