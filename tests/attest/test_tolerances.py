"""A bounded audit counts under tolerances that its reader accepts, not by its author's word."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.contract import Numerics, Optimizer
from attest.level import Level
from attest.numerics_class import CLASSES
from attest.statements import Worst
from attest.trust import CAP_FIELDS, NumericsDemand

F32 = CLASSES["f32"]
BOUNDED = {
    "method": "bounded",
    "worst": Worst(*["0x1.0000000000000p-2"] * 6),
    "environment": {"class.backend": "cpu"},
}


def audited(tale: ModuleType, numerics: Numerics, **changes: Any) -> Any:
    """Tell a run under a contract with these tolerances that acme audits."""
    story = tale.Story()
    story.tell_contract(numerics=numerics)
    story.tell_genesis()
    story.tell_attempt()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme", **{**BOUNDED, **changes})
    story.tell_status()
    return story


def demand(tale: ModuleType, caps: dict[str, float] | None = None, *classes: str) -> Any:
    listed = tuple((caps or {}).items())
    return tale.policy(numerics=NumericsDemand(classes=classes, caps=listed))


def test_bounded_audit_under_the_usual_tolerances_makes_a_run_sampled(tale: ModuleType) -> None:
    for rules in (rules for rules in CLASSES.values() if rules.measured):
        verdict = audited(tale, Numerics.of(rules)).verify(policy=demand(tale))
        assert (verdict.level, verdict.audits[0].shortfall) == (Level.SAMPLED, "")
    tighter = Numerics.of(replace(F32, c=1.0, cap=1e-6))
    assert audited(tale, tighter).verify(policy=demand(tale)).level is Level.SAMPLED


LOOSE: dict[str, tuple[Numerics, dict[str, float]]] = {
    "c": (Numerics.of(replace(F32, c=1e9)), {"c": 1e9}),
    "c_row": (Numerics.of(replace(F32, c_row=1e9)), {"cRow": 1e9}),
    "phi": (Numerics.of(replace(F32, phi=2.0)), {"phi": 2.0}),
    "phi_sum": (Numerics.of(replace(F32, phi_sum=5.0)), {"phiSum": 5.0}),
    "cap": (Numerics.of(replace(F32, cap=1e-3)), {"cap": 1e-3}),
    "a2": (Numerics.of(replace(F32, a2=1.0)), {"a2": 1.0}),
    "a2_cold": (Numerics.of(replace(F32, a2_cold=1.0)), {"a2Cold": 1.0}),
    "roundoff.dot": (
        Numerics.of(replace(F32, roundoff=replace(F32.roundoff, dot=2.0**-11))),
        {"unitRoundoff": 2.0**-11},
    ),
    "null gradients": (Numerics.of(F32, ("parameters/bias",)), {"nullGradients": 1}),
}


@pytest.mark.parametrize("name", LOOSE)
def test_author_cannot_promise_so_little_that_anything_keeps_it(
    tale: ModuleType, name: str
) -> None:
    numerics, caps = LOOSE[name]
    story = audited(tale, numerics)
    verdict = story.verify(policy=demand(tale))
    assert verdict.level is Level.WITNESSED
    assert verdict.audits[0].shortfall.endswith(f"the policy does not cap: {name}")
    assert "acme announced an audit and gave no receipt" in verdict.doubts
    # Who allows it by number, knows what it is worth.
    assert story.verify(policy=demand(tale, caps)).level is Level.SAMPLED
    # Bits are bits.
    exact = audited(tale, numerics, method="exact", worst=Worst(*[None] * 6))
    assert exact.verify(policy=demand(tale)).level is Level.SAMPLED


@pytest.mark.parametrize(
    "changes",
    [
        {"a2_excess": "unattestable"},
        {"local_zeros": "ignored"},
        {"a2_exempt": ("adamw", "sgd")},
        {"dot_algorithm": "BF16_BF16_F32"},
    ],
    ids=str,
)
def test_what_no_number_bounds_no_cap_allows(tale: ModuleType, changes: dict[str, Any]) -> None:
    story = audited(tale, Numerics.of(replace(F32, **changes)))
    caps: dict[str, float] = dict.fromkeys(CAP_FIELDS, 1e9)
    assert story.verify(policy=demand(tale, caps, "f32")).level is Level.WITNESSED


def test_unknown_class_counts_only_where_the_policy_names_and_caps_it(tale: ModuleType) -> None:
    story = audited(tale, Numerics.of(replace(F32, name="mine")))
    caps: dict[str, float] = dict.fromkeys(CAP_FIELDS, 1e9)
    del caps["nullGradients"]
    unnamed = story.verify(policy=demand(tale, caps))
    assert unnamed.audits[0].shortfall == "class mine is unknown, and the policy does not name it"
    assert story.verify(policy=demand(tale, None, "mine")).level is Level.WITNESSED
    assert story.verify(policy=demand(tale, caps, "mine")).level is Level.SAMPLED
    del caps["c"]
    assert story.verify(policy=demand(tale, caps, "mine")).level is Level.WITNESSED


def allowing(tale: ModuleType, *classes: str) -> Any:
    return tale.policy(numerics=NumericsDemand(unmeasured=classes))


@pytest.mark.parametrize("name", ["tf32", "bf16x3"])
def test_class_that_nobody_measured_counts_only_where_the_policy_names_it(
    tale: ModuleType, name: str
) -> None:
    numerics = Numerics.of(CLASSES[name])
    story = audited(tale, numerics)
    verdict = story.verify(policy=demand(tale, None, name))
    assert verdict.level is Level.WITNESSED
    words = f"tolerances of {name} were not measured between cpu/cpu"
    assert verdict.audits[0].shortfall == words and f"({words}: no sample)" in verdict.text()
    assert story.verify(policy=allowing(tale, name)).level is Level.SAMPLED
    assert story.verify(policy=allowing(tale, "f32")).level is Level.WITNESSED
    # Bits are bits.
    exact = audited(tale, numerics, method="exact", worst=Worst(*[None] * 6))
    assert exact.verify(policy=demand(tale)).level is Level.SAMPLED


@pytest.mark.parametrize(
    ("own", "pair"), [({"class.backend": "gpu"}, "cpu/gpu"), ({}, "cpu/unstated")]
)
def test_class_counts_between_backends_on_which_it_was_measured(
    tale: ModuleType, own: dict[str, str], pair: str
) -> None:
    story = audited(tale, Numerics.of(F32), environment=own)
    verdict = story.verify(policy=demand(tale))
    assert verdict.audits[0].shortfall == f"tolerances of f32 were not measured between {pair}"
    assert story.verify(policy=allowing(tale, "f32")).level is Level.SAMPLED


def test_every_attempt_says_where_it_trained(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    story.tell_attempt(number=2, environment={"class.backend": "tpu"})
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme", **BOUNDED)
    story.tell_status()
    words = story.verify(policy=demand(tale)).audits[0].shortfall
    assert words == "tolerances of f32 were not measured between cpu/tpu"


def test_whoever_names_and_caps_an_unknown_class_relies_on_no_measurement(tale: ModuleType) -> None:
    story = audited(tale, Numerics.of(replace(F32, name="mine")), environment={})
    caps: dict[str, float] = dict.fromkeys(CAP_FIELDS, 1e9)
    assert story.verify(policy=demand(tale, caps, "mine")).level is Level.SAMPLED


@pytest.mark.parametrize(("kind", "level"), [("bounded", Level.SAMPLED),
                                             ("elementwise", Level.WITNESSED)])  # fmt: skip
def test_optimizer_that_mixes_elements_leaves_no_walk_to_check(
    tale: ModuleType, kind: str, level: Level
) -> None:
    story = tale.Story()
    story.tell_contract(optimizer=Optimizer(kind, "one"))
    story.tell_genesis()
    story.tell_attempt()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme", **BOUNDED, walk="not checked")
    story.tell_status()
    assert story.verify(policy=demand(tale)).level is level
