"""Numerics classes: the table agrees with the formats it describes."""

import math
from dataclasses import replace
from typing import Any

import pytest

from attest.contract import Numerics
from attest.numerics_class import CLASSES, ClassRules, Roundoff, backend_pair, standard

ALL = pytest.mark.parametrize("rules", CLASSES.values(), ids=list(CLASSES))


def test_the_classes_are_the_five_that_contracts_may_name() -> None:
    assert list(CLASSES) == ["f32", "tf32", "bf16x3", "bf16_f32acc", "bf16"]


@ALL
def test_every_roundoff_is_a_power_of_two_and_no_finer_than_float32(rules: ClassRules) -> None:
    table = rules.roundoff
    for value in (table.dot, table.reduce, table.elementwise, table.storage, table.update):
        assert math.frexp(value)[0] == 0.5
        assert value >= 2.0**-24


@ALL
def test_every_class_sums_and_updates_in_float32(rules: ClassRules) -> None:
    assert rules.roundoff.reduce == rules.roundoff.update == 2.0**-24


@ALL
def test_a_coarser_class_is_never_judged_more_sharply_than_f32(rules: ClassRules) -> None:
    f32 = CLASSES["f32"]
    assert rules.cap >= f32.cap and rules.a2 >= f32.a2 and rules.c >= f32.c
    assert rules.unit_roundoff >= f32.unit_roundoff


def test_caps_leave_room_above_the_largest_honest_spread_measured() -> None:
    # 1.3e-6 in f32 and .034 in bf16, the largest of warm and cold states.
    assert CLASSES["f32"].cap / 1.3e-6 > 10
    assert CLASSES["bf16"].cap / 0.034 > 2
    for name in ("tf32", "bf16x3"):
        assert CLASSES[name].cap > 22 * CLASSES[name].unit_roundoff


def test_classes_that_nobody_measured_say_so_and_never_refute_by_effect() -> None:
    for rules in CLASSES.values():
        if not rules.measured:
            assert rules.source == "declared, not measured"
            assert rules.a2_excess == "unattestable" and rules.local_zeros == "ignored"


def test_classes_say_between_which_backends_honest_replays_were_measured() -> None:
    # docs/red_team.md: 0 of 3,522 (f32), 0 of 65 (bf16_f32acc), 0 of 66 (bf16), all on CPUs, where
    # the others do not run.
    assert {name: rules.source for name, rules in CLASSES.items()} == {
        "f32": "measured cpu/cpu",
        "tf32": "declared, not measured",
        "bf16x3": "declared, not measured",
        "bf16_f32acc": "measured cpu/cpu",
        "bf16": "measured cpu/cpu",
    }
    assert backend_pair("gpu", "cpu") == backend_pair("cpu", "gpu") == "cpu/gpu"


@ALL
def test_a_contract_gives_back_the_rules_it_was_written_from(rules: ClassRules) -> None:
    assert Numerics.of(rules).rules == rules
    assert standard(Numerics.of(rules))


LOOSER: dict[str, dict[str, Any]] = {
    "c": {"c": 4.1},
    "c_row": {"c_row": 10.1},
    "phi": {"phi": 1.1},
    "phi_sum": {"phi_sum": 4.1},
    "cap": {"cap": 2e-4},
    "a2": {"a2": 2e-3},
    "a2_cold": {"a2_cold": 0.2},
    "no a2_cold": {"a2_cold": None},
    "a2_excess": {"a2_excess": "unattestable"},
    "a2_exempt": {"a2_exempt": ("adamw", "sgd")},
    "local_zeros": {"local_zeros": "ignored"},
    "dot_algorithm": {"dot_algorithm": "TF32_TF32_F32"},
    "roundoff": {"roundoff": Roundoff(2.0**-24, 2.0**-24, 2.0**-20, 2.0**-24)},
}


@pytest.mark.parametrize("change", LOOSER.values(), ids=LOOSER.keys())
def test_a_contract_looser_than_its_class_in_one_number_is_not_standard(
    change: dict[str, Any],
) -> None:
    assert not standard(Numerics.of(replace(CLASSES["f32"], **change)))


def test_a_contract_tighter_than_its_class_is_standard() -> None:
    tighter = replace(CLASSES["bf16"], c=3.0, cap=0.05, a2_cold=0.3, a2_excess="refuted")
    assert standard(Numerics.of(tighter))


def test_an_unknown_class_and_named_null_gradients_are_not_standard() -> None:
    assert not standard(Numerics.of(replace(CLASSES["f32"], name="fp8")))
    assert not standard(Numerics.of(CLASSES["f32"], ("embedding",)))
