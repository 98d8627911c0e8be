"""What `anh audit` prints states no probability that its sample did not earn."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from attest.statements import Worst
from launch.audit_answer import exit_code, headline, lines
from launch.errors import ExitCode


def audited(*outcomes: str, drift: str = "no null known") -> Any:
    results = [
        SimpleNamespace(step=i, outcome=outcome, words="so", seconds=1.0)
        for i, outcome in enumerate(outcomes, start=1)
    ]
    check = SimpleNamespace(verdict="pass", words="holds")
    return SimpleNamespace(
        run="a" * 64,
        total=1000,
        who=SimpleNamespace(operator="acme"),
        trainer="lab",
        sample=SimpleNamespace(kind="intents", k=len(outcomes), steps=range(len(outcomes))),
        sources=("acme",),
        receipt=SimpleNamespace(
            method="exact", drift="no null known", worst=Worst(*[None] * 6)
        ),
        properties=(),
        findings=SimpleNamespace(
            results=results, init=check, line=check, export=check, walk=check,
            drift=SimpleNamespace(verdict=drift, words="leans"),
            step_seconds=(1.0,),
            seconds=1.0, notes=(),
        ),
        indices=(7,),
        results="audits/1.json",
        proof=None,
        client="",
        artifact="",
        loose="",
        evidence=SimpleNamespace(equivocation=None, withheld=None),
    )  # fmt: skip


def shown(*outcomes: str) -> str:
    return "\n".join(lines(cast(Any, audited(*outcomes))))


def test_residuals_that_lean_one_way_fail_an_audit_whose_steps_all_passed() -> None:
    found = audited("pass", "pass", drift="fail")
    assert exit_code(found) is ExitCode.FAILED
    assert headline(found) == "REFUTED: drift leans"
    assert exit_code(audited("pass", "pass", drift="pass")) is ExitCode.PASSED


def test_audit_that_could_not_check_a_part_names_it_and_the_steps_that_passed() -> None:
    found = audited("pass", "pass")
    found.findings.export = SimpleNamespace(verdict="not checked", words="state 24 was not shown")
    assert exit_code(found) is ExitCode.COULD_NOT_RUN
    assert headline(found) == (
        "not refuted, and not covered: 2 of 2 steps passed; not checked: export (state 24 was not "
        "shown)"
    )
    lost = audited("pass", "unattestable")
    assert exit_code(lost) is ExitCode.COULD_NOT_RUN
    words = "not refuted, and not covered: 1 of 2 steps could not be judged here"
    assert headline(lost) == words
    lost.findings.init = SimpleNamespace(verdict="not checked", words="drawn otherwise")
    assert headline(lost) == f"{words}; not checked: init (drawn otherwise)"


def test_walk_that_was_not_due_keeps_nothing_from_passing() -> None:
    found = audited("pass")
    found.findings.walk = SimpleNamespace(verdict="not checked", words="fewer than two updates")
    assert exit_code(found) is ExitCode.PASSED and headline(found) == "passed: 1 of 1 steps"


def test_sample_that_passed_whole_has_both_probabilities() -> None:
    assert shown(*["pass"] * 20).count("p =") == 2


@pytest.mark.parametrize("lost", ["unattestable", "withheld", "refuted"])
def test_sample_of_which_a_step_did_not_pass_has_none(lost: str) -> None:
    text = shown(*["pass"] * 19, lost)
    assert "19 of 1,000 steps count as checked" in text
    assert "no probability is stated: 1 drawn step did not pass" in text
    assert "p =" not in text
