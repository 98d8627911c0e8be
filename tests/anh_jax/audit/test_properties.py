"""Properties are decided in integers, with a margin in which nobody decides."""

import dataclasses

import pytest

from anh_jax.audit.properties import decide, property_statements
from anh_jax.workbench import Counts
from attest.contract import PropertyRule
from attest.properties import _fits

RULE = PropertyRule("accuracy", "a" * 64, "b" * 64, numerator=9, denominator=10, margin=3)


@pytest.mark.parametrize(
    "correct, verdict",
    [(93, "met"), (92, "undecided"), (90, "undecided"), (87, "undecided"), (86, "not met")],
)
def test_margin_leaves_the_neighbourhood_of_the_threshold_undecided(
    correct: int, verdict: str
) -> None:
    assert decide(RULE, Counts(correct, 100, 0.0)) == verdict


def test_without_a_margin_the_threshold_itself_is_met() -> None:
    rule = dataclasses.replace(RULE, margin=0)
    assert decide(rule, Counts(90, 100, 0.0)) == "met"
    assert decide(rule, Counts(89, 100, 0.0)) == "not met"


def test_statements_name_the_verified_state_and_fit_the_clients_rule(
    honest, trainers, workshop
) -> None:
    told, contract = trainers.transcript(honest), workshop.materials.contract
    for correct in range(0, 360, 7):
        (said,) = property_statements(contract, told, Counts(correct, 359, 0.5), auditor="acme")
        assert said.state_root == told.final.state_root
        assert said.final == told.final_record
        assert _fits(said)


def test_property_over_other_data_or_by_another_program_is_not_stated(
    honest, trainers, workshop
) -> None:
    contract = workshop.materials.contract
    (rule,) = contract.properties
    for change in ({"data_root": "c" * 64}, {"program": "d" * 64}):
        other = dataclasses.replace(contract, properties=(dataclasses.replace(rule, **change),))
        counts = Counts(1, 359, 0.0)
        told = trainers.transcript(honest)
        assert not list(property_statements(other, told, counts, auditor="acme"))
