"""Checks of a run as a whole: what passes, what fails, and what cannot be judged here."""

import dataclasses

import numpy as np
import pytest

from anh_jax.audit.auditor import Auditor
from anh_jax.audit.benches import Benches
from anh_jax.audit.results import Check, StepResult
from anh_jax.audit.run_checks import check_export, check_init, check_line, check_walk
from anh_jax.bounds.walk import PairwiseCosine
from anh_jax.errors import ProgramError
from anh_jax.stated_class import ClassMatch
from attest.statements import ExportedFile, Line

HERE = ClassMatch("")
ELSEWHERE = ClassMatch("another execution class: threads")


@pytest.fixture(scope="module")
def told(honest, trainers):
    return trainers.transcript(honest)


@pytest.fixture(scope="module")
def parameters(honest, trainers, workshop):
    with workshop.auditing(), Auditor(honest, trainers.transcript(honest)) as auditor:
        return auditor._final_state(Check("pass", "")).state["parameters"]


def test_equal_state_0_passes_anywhere(told) -> None:
    root = told.genesis.state_root
    for kind in ("exact", "class"):
        assert check_init(root, told, kind, ELSEWHERE).verdict == "pass"


@pytest.mark.parametrize(
    "kind, stated, match, verdict",
    [
        ("exact", "exact", ELSEWHERE, "fail"),
        ("exact", "class", ELSEWHERE, "fail"),
        ("class", "exact", ELSEWHERE, "fail"),
        ("class", "class", HERE, "fail"),
        ("class", "class", ELSEWHERE, "not checked"),
    ],
)
def test_other_state_0_fails_unless_init_may_round(
    told, kind: str, stated: str, match: ClassMatch, verdict: str
) -> None:
    genesis = dataclasses.replace(told.genesis, init=stated)
    found = check_init("0" * 64, dataclasses.replace(told, genesis=genesis), kind, match)
    assert found.verdict == verdict


def test_export_names_exactly_the_file_that_the_rule_makes(told, parameters) -> None:
    assert check_export(parameters, told).verdict == "pass"
    (named,) = told.final.files

    def with_files(*files: ExportedFile):
        return dataclasses.replace(told, final=dataclasses.replace(told.final, files=files))

    swapped = dataclasses.replace(named, sha256="0" * 64)
    assert check_export(parameters, with_files(swapped)).verdict == "fail"
    other = ExportedFile("weights.bin", named.sha256)
    assert check_export(parameters, with_files(named, other)).verdict == "fail"
    assert check_export(parameters, with_files()).verdict == "not checked"
    assert check_export(None, told).verdict == "not checked"


def test_line_has_the_promised_length_and_ends_in_the_final_state(told, trainers) -> None:
    assert check_line(told, steps=trainers.STEPS).verdict == "pass"
    assert check_line(told, steps=trainers.STEPS + 1).verdict == "fail"
    longer = Line(told.final.line.count + 1, told.final.line.root)
    for change in ({"line": longer, "steps": told.final.steps + 1}, {"state_root": "0" * 64}):
        final = dataclasses.replace(told.final, **change)
        found = check_line(dataclasses.replace(told, final=final), steps=trainers.STEPS)
        assert found.verdict == "fail"


def test_contract_that_genesis_does_not_name_is_refused(honest, told, workshop) -> None:
    genesis = dataclasses.replace(told.genesis, contract="0" * 64)
    with pytest.raises(ProgramError, match="genesis names 0000"):
        Benches(workshop.read(honest), genesis)


def test_updates_that_lean_one_way_fail_and_one_alone_is_not_checked() -> None:
    direction = np.sign(np.random.default_rng(0).normal(size=4000))
    results = [StepResult(step, "pass", "", walk=0.2) for step in (1, 2)]
    walked, still = PairwiseCosine(), PairwiseCosine()
    for _ in results:
        walked.add({"w": direction})
        still.add({"w": 0 * direction})
    assert check_walk(walked, results[:1]).verdict == "not checked"
    assert check_walk(walked, results).verdict == "fail"
    assert check_walk(still, results).verdict == "pass"


def test_walk_on_a_few_elements_is_not_said_to_be_none() -> None:
    results = [StepResult(step, "pass", "", walk=0.2) for step in range(1, 5)]
    for steps, verdict in ((2, "not checked"), (4, "fail")):
        walked = PairwiseCosine()
        for _ in range(steps):
            walked.add({"w": np.r_[np.ones(20), np.zeros(480)]})
        assert check_walk(walked, results[:steps]).verdict == verdict
