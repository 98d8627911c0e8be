"""Every trainer of the red team really cheats, and the table says what the checks make of it."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from anh_jax.audit.results import Check
from anh_jax.bounds.step_check import CommittedStep, StepCheck
from anh_jax.redteam import adversarial, other_bounds, other_rule, splices
from anh_jax.redteam.attack import DETECTED, Outcome, Trial
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.catalogue import STEP_ATTACKS
from anh_jax.redteam.step_numbers import numbers_of, row_numbers
from anh_jax.redteam.table import line_of
from anh_jax.redteam.trainer import StepAttack, Trainer
from attest.canonical import parse_hex_float

# What needs a contract of its own or a chain of inner checks.
_APART = {"filled-tolerance", "dead-column-backdoor", "saturating-contract", "moved-padding"}
_HERE = [attack for attack in STEP_ATTACKS if attack.name not in _APART]
# One of each kind of fault, each with a fact of its own in the audit.
_QUICK = ("swapped-sample", "stale-gradient", "rate-1.0001", "ulp-walk", "bf16x3-for-f32",
          "rare-row-backdoor", "nan-splice", "inflated-bound", "poisoned-profile",
          "committed-adversarial-examples", "adversarial-state", "moved-padding")  # fmt: skip


def committed(bench: RedTeamBench, trainer: Trainer) -> list[bytes]:
    """Return what a trainer commits, unsigned: the bytes of each step's outputs and state."""
    state: dict[str, Any] = trainer.first(bench.initial_state())
    found = [_bytes(state["parameters"])]
    for step in range(1, bench.steps + 1):
        outputs = trainer.gradient(state, step)
        state = {**trainer.update(state, outputs, step), "step": np.uint32(step)}
        found.append(_bytes((outputs["gradient"], outputs["loss"])))
        found.append(_bytes((state["parameters"], state["optimizer"])))
    return [*found, _bytes(trainer.exported(state["parameters"]))]


def _bytes(tree: Any) -> bytes:
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def honestly(bench: RedTeamBench) -> list[bytes]:
    return committed(bench, Trainer(bench, frozenset()))


@pytest.mark.parametrize("attack", _HERE, ids=lambda attack: attack.name)
def test_attacker_commits_something_else_than_an_honest_trainer(
    attack: StepAttack, bench: RedTeamBench, honestly: list[bytes]
) -> None:
    trainer = attack.trainer(bench, attack.bad_steps(bench, 0))
    if attack.name == "inflated-bound":
        assert trainer.bound == 1.0
    assert committed(bench, trainer) != honestly


def test_honest_trainer_commits_the_same_again(bench: RedTeamBench, honestly: list[bytes]) -> None:
    every_step = frozenset(range(1, bench.steps + 1))
    assert committed(bench, Trainer(bench, every_step)) == honestly


def test_names_are_unique_and_each_attack_says_what_it_is() -> None:
    names = [attack.name for attack in STEP_ATTACKS]
    assert len(set(names)) == len(names)
    for attack in STEP_ATTACKS:
        assert attack.what.endswith(".") and attack.family
        assert attack.expected.verdict == "detected" or attack.expected.figure


def test_honest_run_is_refuted_nowhere(bench: RedTeamBench) -> None:
    found = bench.audit(bench.honest(), range(1, bench.steps + 1))
    assert {result.outcome for result in found.results} == {"pass"}
    assert (found.init.verdict, found.line.verdict, found.export.verdict) == ("pass",) * 3


@pytest.mark.parametrize("name", _QUICK)
def test_cheated_steps_are_refuted(name: str, bench: RedTeamBench) -> None:
    attack = next(attack for attack in STEP_ATTACKS if attack.name == name)
    line = line_of(attack, attack.carry_out(bench, rounds=1), attack.expected_at(bench))
    assert line.n > 0
    assert line.detected == line.n and line.met, line.words


def test_poisoned_profile_declares_a_bound_that_would_excuse_its_cheat(
    bench: RedTeamBench,
) -> None:
    attack = other_bounds.PoisonedProfile()
    trainer = attack.trainer(bench, frozenset({1}))
    run = bench.train(trainer)
    row = bench.transcript(run).line.rows[0].row
    honest = bench.transcript(bench.honest()).line.rows[0].row
    assert row.bound is not None and honest.bound is not None
    stretch = getattr(trainer, "stretch")  # noqa: B009
    assert parse_hex_float(row.bound) >= 2 * stretch > 100 * parse_hex_float(honest.bound)


def test_declared_bound_however_large_moves_no_statistic(bench: RedTeamBench) -> None:
    state, step = bench.initial_state(), 1
    outputs = bench.gradient(state, bench.piece(step))
    longer = jax.tree.map(lambda x: x * np.float32(1 + 1e-5), outputs["gradient"])
    cheated = {**outputs, "gradient": longer}
    after = bench.update(state, cheated, step)
    numbers = row_numbers(numbers_of(cheated, bench.executor.scalars(cheated)))

    def found(declared: float | None) -> tuple[str, float, float]:
        told = dataclasses.replace(numbers, declared=declared)
        committed = CommittedStep(step, state, cheated, after, told)
        statistics = bench.step_check().check(committed, seed=7)
        return statistics.outcome, statistics.a.value, statistics.a_row.value

    assert found(1e6) == found(None)
    assert found(None)[0] == "refuted"
    assert found(1e-9)[1] > found(None)[1]


def test_pixels_are_optimised_within_the_range_of_the_data(bench: RedTeamBench) -> None:
    trainer = adversarial.AdversarialExamples().trainer(bench, frozenset({1}))
    state = bench.initial_state()
    wanted = jax.tree.map(lambda a, b: a - b, state["parameters"], bench.stolen())
    found = getattr(trainer, "searched")(state, wanted, 1)  # noqa: B009
    assert float(found["image"].min()) >= 0 and float(found["image"].max()) <= 1
    trainer.gradient(state, 1)
    reached = trainer.gained["cosine with the way to stolen weights"]
    assert reached > trainer.gained["honest cosine"] + 0.3


def test_batch_of_other_examples_is_refuted_by_its_root(bench: RedTeamBench) -> None:
    for attack in (adversarial.CommittedExamples(), adversarial.ChosenBatch()):
        run = bench.train(attack.trainer(bench, frozenset({2})))
        (result,) = bench.audit(run, (2,)).results
        assert result.outcome == "refuted" and result.words.startswith("batch root")


def test_honest_step_works_from_an_adversarial_state(bench: RedTeamBench) -> None:
    outcome = adversarial.AdversarialState().carry_out(bench, rounds=1)
    assert [trial.detected for trial in outcome.trials] == [True]
    assert outcome.damage["working steps that pass"] == 1
    assert outcome.damage["distance to stolen weights"] < 1e-5


def test_path_of_nudges_passes_step_by_step_and_leads_nowhere(
    bench: RedTeamBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = splices.InfinitesimalPath()
    damage = attack.carry_out(bench, rounds=1).damage
    assert damage["steps seen alone"] == 0 < damage["share of weights nudged"]
    assert 1 - 1e-6 < damage["distance to stolen weights"] <= 1
    # Seen by the walk over all steps, or not: the trial is what that check says of the run.
    for found, detected in ((Check("fail", ""), True), (Check("pass", ""), False)):
        monkeypatch.setattr("anh_jax.audit.auditor.check_walk", lambda *given, f=found: f)
        (trial,) = attack.carry_out(bench, rounds=1).trials
        assert trial.detected is detected


@pytest.mark.parametrize("attack", [splices.ForeignInit(), splices.SwappedExport()])
def test_weights_from_elsewhere_are_seen_at_either_end(
    attack: StepAttack, bench: RedTeamBench
) -> None:
    outcome = attack.carry_out(bench, rounds=1)
    assert [trial.detected for trial in outcome.trials] == [True]


def test_checks_that_accept_everything_make_the_table_fail(
    bench: RedTeamBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = StepCheck.check

    def lenient(self: StepCheck, *given: Any, **named: Any) -> Any:
        return dataclasses.replace(real(self, *given, **named), outcome="pass")

    monkeypatch.setattr(StepCheck, "check", lenient)
    attack = other_rule.RateOnePercent()
    line = line_of(attack, attack.carry_out(bench, rounds=1), attack.expected_at(bench))
    assert (line.detected, line.n) == (0, 3)
    assert not line.met


def test_what_cannot_be_judged_is_not_detected() -> None:
    outcome = Outcome((Trial(True, 9.0, "A"), Trial(False, 0.5, "not covered")))
    attack = SimpleNamespace(**{n: getattr(other_rule.SkippedStep(), n) for n in
                                ("name", "family", "what")})  # fmt: skip
    line = line_of(attack, outcome, DETECTED)  # type: ignore[arg-type]
    assert (line.detected, line.n, line.met, line.margin) == (1, 2, False, 0.5)
    assert line.words == "not covered"


@pytest.mark.parametrize(
    "class_name, hidden",
    [
        ("f32", set[str]()),
        ("bf16_f32acc", {"int8-weights", "overwritten-forward"}),
        ("bf16", {"int8-weights", "overwritten-forward", "stale-gradient"}),
    ],
)
def test_only_a_coarse_class_excuses_what_its_rounding_hides(
    class_name: str, hidden: set[str]
) -> None:
    contract = SimpleNamespace(numerics=SimpleNamespace(class_=class_name))
    place: Any = SimpleNamespace(materials=SimpleNamespace(contract=contract))
    expected = {attack.name: attack.expected_at(place) for attack in STEP_ATTACKS}
    excused = {name for name, found in expected.items() if found.verdict == "within noise"}
    assert excused == hidden
    attack = other_rule.StaleGradient()
    line = line_of(attack, Outcome((Trial(False, 0.5, ""),)), attack.expected_at(place))
    assert line.met is (attack.name in hidden)
    assert (line.n, line.rate) == (1, 0.0)


@pytest.mark.full
@pytest.mark.parametrize("attack", STEP_ATTACKS, ids=lambda attack: attack.name)
def test_every_attack_meets_what_is_expected(attack: StepAttack, bench: RedTeamBench) -> None:
    if attack.obstacle(bench):
        pytest.skip(attack.obstacle(bench))
    line = line_of(attack, attack.carry_out(bench, rounds=3), attack.expected_at(bench))
    assert line.n > 0 and line.met, (line.detected, line.n, line.words)


@pytest.mark.full
def test_backdoors_inside_the_tolerance_stay_at_the_honest_trigger_rate(
    bench: RedTeamBench,
) -> None:
    attack = next(attack for attack in STEP_ATTACKS if attack.name == "filled-tolerance")
    damage = attack.carry_out(bench, rounds=1).damage
    assert damage["trigger rate"] <= damage["honest trigger rate"] + 0.05


class _Rates:
    """A contract whose learning rate rises from nothing, as a warm-up makes it."""

    steps = 6

    def __init__(self, decay: float) -> None:
        rates = np.arange(self.steps, dtype=np.float32)[:, None] * np.float32(1e-3)
        optimizer = SimpleNamespace(weight_decay=decay)
        self.materials = SimpleNamespace(
            constants=SimpleNamespace(names=("learningRate",), values=rates),
            experiment=SimpleNamespace(optimizer=optimizer),
        )


def test_missing_decay_is_tried_only_where_a_weight_shows_it() -> None:
    unit = 2.0**-23
    attack: Any = other_rule.NoWeightDecay()
    place: Any = _Rates(decay=unit / 2.5e-3)  # a whole unit from step 4 on
    assert attack.obstacle(place) == ""
    assert attack.bad_steps(place, 0) == frozenset({4})
    assert attack.bad_steps(place, 1) == frozenset({5})
    slight: Any = _Rates(decay=unit / 6e-3)
    assert "less than a unit" in attack.obstacle(slight)
