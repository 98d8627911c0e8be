"""Residuals that lean one way over the steps are drift; those of rounding are not."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.audit.drift import (
    NULLS,
    ClassPair,
    DriftAccumulator,
    DriftNull,
    DriftWatch,
    class_pair,
    find_null,
)
from anh_jax.errors import AnhError

PAIR = ClassPair("f32", ("cpu:cpu", "cpu:cpu"), ("mesh",))
NULL = DriftNull(PAIR, 0.02)
SHAPE = (40, 50)


def gathered(steps: int, push: float, *, seed: int = 0, scale: float = 1e-7) -> DriftAccumulator:
    """Return residuals of unit noise with a fixed direction of so many units added to each."""
    draw = np.random.default_rng(seed)
    direction = draw.normal(size=SHAPE)
    found = DriftAccumulator()
    for step in range(steps):
        reference = draw.normal(size=SHAPE).astype(np.float64) * scale * 1000
        residual = scale * (draw.normal(size=SHAPE) + push * direction)
        committed = {"layer": {"kernel": (reference + residual).astype(np.float32)}}
        found.add(step, committed, {"layer": {"kernel": jnp.asarray(reference, jnp.float32)}})
    return found


def test_rounding_passes_and_a_push_within_the_noise_fails() -> None:
    assert gathered(8, 0.0).verdict(NULL).verdict == "pass"
    pushed = gathered(8, 0.5).verdict(NULL)
    assert pushed.verdict == "fail"
    assert pushed.worst is not None and pushed.worst.where == "layer/kernel"
    # Half a deviation of noise in one direction is a mean cosine of 1/5.
    (seen,) = gathered(8, 0.5).tensors().values()
    assert seen.mean == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("scale", [1e-30, 1e-7, 1e20])
def test_size_of_the_residuals_does_not_matter(scale: float) -> None:
    (seen,) = gathered(4, 0.5, scale=scale).tensors().values()
    assert seen.mean == pytest.approx(0.2, abs=0.06)


def test_honest_audits_fail_rarely_of_many() -> None:
    verdicts = [gathered(3, 0.0, seed=seed).verdict(NULL).verdict for seed in range(40)]
    assert verdicts == ["pass"] * 40


def test_running_sums_give_the_mean_over_all_pairs() -> None:
    draw = np.random.default_rng(1)
    residuals = [draw.normal(size=SHAPE).astype(np.float32) for _ in range(5)]
    found = DriftAccumulator()
    for step, residual in enumerate(residuals):
        found.add(step, {"w": residual}, {"w": jnp.zeros(SHAPE)})
    (seen,) = found.tensors().values()
    # Normal draws of this number hold none beyond 4 deviations, hence nothing is clipped.
    assert max(float(np.max(np.abs(r)) / np.sqrt(np.mean(r**2))) for r in residuals) < 4
    units = [r / np.linalg.norm(r) for r in residuals]
    pairs = [float(np.sum(units[i] * units[j])) for i in range(5) for j in range(i)]
    assert seen.mean == pytest.approx(float(np.mean(pairs)), abs=1e-5)
    squares = [float(np.sum(units[i] ** 2 * units[j] ** 2)) for i in range(5) for j in range(i)]
    assert seen.deviation == pytest.approx(np.sqrt(np.sum(squares)) / 10, rel=1e-3)


def test_few_large_elements_do_not_decide() -> None:
    draw = np.random.default_rng(2)
    found = DriftAccumulator()
    for step in range(6):
        residual = draw.normal(size=SHAPE)
        residual[0, 0] = 1e6
        found.add(step, {"w": residual.astype(np.float32)}, {"w": jnp.zeros(SHAPE)})
    (seen,) = found.tensors().values()
    # Unclipped, one element alone would make every cosine 1.
    assert seen.mean < 0.1


def test_nothing_is_said_without_a_null_or_a_second_step() -> None:
    assert gathered(8, 0.5).verdict(None).verdict == "no null known"
    assert gathered(1, 0.5).verdict(NULL).verdict == "no null known"
    once = DriftAccumulator()
    for _ in range(2):
        once.add(7, {"w": np.ones(64, np.float32)}, {"w": jnp.zeros(64)})
    assert once.verdict(NULL).verdict == "no null known"


def test_step_that_is_added_twice_counts_once() -> None:
    draw = np.random.default_rng(5)
    found = DriftAccumulator()
    for step in (7, 8):
        residual = draw.normal(size=SHAPE).astype(np.float32)
        for _ in range(5):
            found.add(step, {"w": residual}, {"w": jnp.zeros(SHAPE)})
    (seen,) = found.tensors().values()
    assert seen.steps == 2 and found.verdict(NULL).verdict == "pass"


def test_equal_bits_leave_nothing_that_leans() -> None:
    found = DriftAccumulator()
    for step in range(3):
        found.add(step, {"w": np.ones(64, np.float32)}, {"w": jnp.ones(64)})
    assert found.verdict(NULL).verdict == "pass"


def test_element_that_is_not_finite_leaves_the_others_to_be_seen() -> None:
    draw = np.random.default_rng(3)
    found = DriftAccumulator()
    for step in range(4):
        residual = (1 + draw.normal(size=SHAPE)).astype(np.float32)
        residual[0, 0] = np.nan
        found.add(step, {"w": residual}, {"w": jnp.zeros(SHAPE)})
    assert found.verdict(NULL).verdict == "fail"


def test_pair_of_classes_names_what_differs() -> None:
    own = {"backend": "cpu", "deviceKind": "cpu", "mesh": "data=1", "jaxlib": "1"}
    assert class_pair("f32", own, {**own, "mesh": "data=2"}) == PAIR
    gpu = {**own, "backend": "gpu", "deviceKind": "H100"}
    assert class_pair("f32", gpu, own) == class_pair("f32", own, gpu)
    assert class_pair("f32", gpu, own).backends == ("cpu:cpu", "gpu:H100")
    assert class_pair("f32", gpu, own).differs == ("backend", "deviceKind")


def test_null_is_of_this_pair_alone() -> None:
    found = find_null(PAIR)
    assert found is not None and 0 < found.allowed < 0.5
    assert find_null(ClassPair("bf16", PAIR.backends, PAIR.differs)) is None
    assert find_null(ClassPair("f32", ("cpu:cpu", "gpu:H100"), PAIR.differs)) is None
    assert find_null(ClassPair("f32", PAIR.backends, ("jaxlib", "mesh"))) is None


def test_frozen_nulls_say_how_they_were_measured() -> None:
    for null in json.loads(NULLS.read_text())["nulls"]:
        measured, test = null["measured"], null["test"]
        assert measured["audits"] >= 8 and measured["stepsOfAnAudit"] >= 2
        assert measured["command"] == "python bench/drift_null.py --write"
        # Calibration and test share no seed.
        assert measured["seeds"][1] < test["seeds"][0]
        assert test["failed"] == 0 and test["audits"] >= 4
        assert null["allowed"] >= 2 * measured["largestExcess"]


def test_file_that_is_no_list_of_nulls_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nulls.json").write_text('{"nulls": [{}]}')
    with pytest.raises(AnhError, match="holds no drift nulls"):
        find_null(PAIR, tmp_path / "nulls.json")


def test_run_that_moved_is_judged_pair_by_pair() -> None:
    own = {"backend": "cpu", "deviceKind": "cpu", "mesh": "data=1"}
    draw = np.random.default_rng(4)

    def watched(*pairs: tuple[str, float]) -> str:
        watch = DriftWatch("f32")
        for other, push in pairs:
            for step in range(4):
                residual = (draw.normal(size=SHAPE) + push).astype(np.float32)
                sums = watch.of(own, {**own, "mesh": "data=2", "jaxlib": other})
                sums.add(step, {"w": residual}, {"w": jnp.zeros(SHAPE)})
        return watch.finding().verdict

    known = {"mesh": "data=2"}
    watch = DriftWatch("f32")
    assert watch.finding().verdict == "no null known"
    for push, verdict in ((0.0, "pass"), (1.0, "fail")):
        watch = DriftWatch("f32")
        for step in range(4):
            residual = (draw.normal(size=SHAPE) + push).astype(np.float32)
            watch.of(own, {**own, **known}).add(step, {"w": residual}, {"w": jnp.zeros(SHAPE)})
        assert watch.finding().verdict == verdict
    # What nobody measured is not passed because another pair is.
    assert watched(("1", 0.0)) == watched(("1", 1.0)) == "no null known"
    for push, verdict in ((0.0, "no null known"), (1.0, "fail")):
        watch = DriftWatch("f32")
        for step in range(4):
            residual = (draw.normal(size=SHAPE) + push).astype(np.float32)
            watch.of(own, {**own, **known}).add(step, {"w": residual}, {"w": jnp.zeros(SHAPE)})
        watch.of(own, {**own, "jaxlib": "1"})
        assert watch.finding().verdict == verdict
