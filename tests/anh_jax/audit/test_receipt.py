"""A receipt counts what was found, commits to every row, and lets single rows be opened."""

import dataclasses
import json
import math

import pytest

from anh_jax.audit.drift import DriftFinding
from anh_jax.audit.findings import Findings
from anh_jax.audit.receipt import results_document, salts_document, write_receipt
from anh_jax.audit.results import (
    Check,
    StepResult,
    count,
    graver,
    results_root,
    salted_root,
    worst,
)
from anh_jax.audit.sampling import chosen_sample
from attest import canonical, merkle
from attest.statements import Audit, decode_statement, encode_statement

PASS = Check("pass", "fine")
RESULTS = (
    StepResult(3, "pass", "", gradient_root="1" * 64, a=0.25, b=0.5),
    StepResult(7, "refuted", "state root", gradient_root="2" * 64, b=math.inf),
    StepResult(8, "unattestable", "class", gradient_root="3" * 64, a=0.75),
    StepResult(9, "withheld", "no state"),
)


def findings(*results: StepResult) -> Findings:
    return Findings(
        results=results,
        init=PASS,
        line=PASS,
        export=PASS,
        walk=PASS,
        drift=DriftFinding("no null known", "nobody has measured it"),
        spread_seed=7,
        counts=None,
        seconds=1.5,
        step_seconds=(0.5,) * len(results),
        notes=(),
    )


@pytest.fixture(scope="module")
def told(honest, trainers):
    return trainers.transcript(honest)


def write(told, *results: StepResult):
    return write_receipt(
        findings(*results),
        told,
        chosen_sample([r.step for r in results], total=24),
        auditor="acme",
        method="bounded",
        own_class={"backend": "cpu"},
    )


def test_receipt_counts_every_step_and_reads_back(told) -> None:
    audit = write(told, *RESULTS).audit
    counts = audit.counts
    assert (counts.pass_, counts.refuted, counts.unattestable, counts.withheld) == (1, 1, 1, 1)
    assert (audit.steps, audit.k) == (3, 4)
    assert (audit.worst.a, audit.worst.b) == ((0.75).hex(), "inf")
    assert (audit.method, audit.drift) == ("bounded", "no null known")
    assert audit.environment["class.backend"] == "cpu"
    read = decode_statement(encode_statement(audit))
    assert read == audit and isinstance(read, Audit)


def test_statistic_that_is_not_a_number_is_the_worst() -> None:
    assert math.isnan(worst([0.5, math.nan, 2.0]))
    assert worst([None, None]) is None


def test_one_result_opens_under_the_results_root(told) -> None:
    receipt = write(told, *RESULTS)
    document = json.loads(results_document(receipt, findings(*RESULTS), record="0" * 64))
    leaves = [merkle.leaf_hash(canonical.encode(row)) for row in document["results"]]
    path = merkle.inclusion_path(1, len(leaves), leaves)
    root = merkle.root_from_inclusion(1, len(leaves), leaves[1], path)
    assert root.hex() == receipt.audit.results_root == results_root(RESULTS).hex()
    assert document["results"][1]["outcome"] == "refuted"


def test_changed_result_changes_the_root() -> None:
    changed = dataclasses.replace(RESULTS[1], outcome="pass")
    assert results_root((RESULTS[0], changed, *RESULTS[2:])) != results_root(RESULTS)
    assert results_root(RESULTS[::-1]) == results_root(RESULTS)


def test_own_gradient_roots_are_salted_and_open_with_the_salts(told) -> None:
    first, second = write(told, *RESULTS), write(told, *RESULTS)
    assert first.audit.gradient_roots != second.audit.gradient_roots
    opened = json.loads(salts_document(first, findings(*RESULTS), record="0" * 64))
    assert [g["step"] for g in opened["gradients"]] == [3, 7, 8]
    salts = {g["step"]: bytes.fromhex(g["salt"]) for g in opened["gradients"]}
    assert salted_root(RESULTS, salts).hex() == first.audit.gradient_roots
    results = results_document(first, findings(*RESULTS), record="0" * 64)
    assert not any(salt.hex().encode() in results for salt in salts.values())
    assert b"1111" not in results


def test_graver_result_stands_for_a_step_that_was_judged_twice() -> None:
    by_outcome = {result.outcome: result for result in RESULTS}
    assert graver(by_outcome["pass"], by_outcome["refuted"]).outcome == "refuted"
    assert graver(by_outcome["unattestable"], by_outcome["pass"]).outcome == "unattestable"
    assert count(RESULTS) == {"pass": 1, "refuted": 1, "unattestable": 1, "withheld": 1}


def test_results_root_commits_to_what_rounding_was_estimated_with() -> None:
    roots = {
        results_root([StepResult(1, "pass", "", spread_seed=f"{seed:016x}")]) for seed in (1, 2)
    }
    assert len(roots) == 2
