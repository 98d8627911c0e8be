"""Every check of a step counts, each by itself, and what could not be judged is never passed."""

import dataclasses
import math
from typing import Any

import pytest

from anh_jax.bounds.gradient_check import Findings
from anh_jax.bounds.statistic import Statistic
from anh_jax.bounds.step_statistics import StepStatistics, concluded
from anh_jax.bounds.update_judge import UpdateFindings

GOOD, BAD = Statistic(0.5, "w"), Statistic(1.5, "w")
FINDINGS = Findings(GOOD, GOOD, GOOD, GOOD, ())
UPDATE = UpdateFindings(GOOD, GOOD)


def outcome(excess: Any = "refuted", **changes: Any) -> StepStatistics:
    parts = {"findings": FINDINGS, "update": UPDATE}
    for name, change in changes.items():
        part, _, field = name.partition("_of_")
        parts[field] = dataclasses.replace(parts[field], **{part: change})
    return concluded(parts["findings"], GOOD, parts["update"], {}, excess=excess)


@pytest.mark.parametrize("bad", [BAD, Statistic(math.nan, "w"), Statistic(math.inf, "w")])
@pytest.mark.parametrize(
    "name", ["a_of_findings", "a_row_of_findings", "zeros_of_findings", "b_of_update",
             "walk_of_update"]
)  # fmt: skip
def test_each_check_refutes_by_itself_in_every_class(name: str, bad: Statistic) -> None:
    assert outcome().outcome == "pass"
    for excess in ("refuted", "unattestable"):
        assert outcome(excess, **{name: bad}).outcome == "refuted"


@pytest.mark.parametrize("name", ["capped_of_findings", "capped_of_update"])
def test_what_could_not_be_judged_is_never_passed(name: str) -> None:
    found = outcome(**{name: (("gradient", "w"),)})
    assert found.outcome == "unattestable" and "above the cap in gradient/w" in found.words
