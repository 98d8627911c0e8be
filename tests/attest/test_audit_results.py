"""Results are those that a receipt commits to, and their noise is the one that nobody picked."""

import dataclasses
from types import ModuleType
from typing import Any

import pytest

from attest import canonical
from attest.audit_results import check_results
from attest.errors import FormatError, RefusedError
from attest.merkle import leaf_hash, tree_root
from attest.sample import sample_steps
from attest.spread_seed import spread_seed, step_seed
from attest.statements import ContractStatement, Counts, Worst

QUARTER = (0.25).hex()
STATISTICS = ("a", "aRow", "zeros", "a2", "b", "walk")


class Shown:
    """A bounded audit by acme in a run of 1,000 steps, and the file of its results."""

    def __init__(self, tale: ModuleType, **audit: Any) -> None:
        self.tale, self.audit = tale, audit
        self.story = tale.Story()
        self.story.open()
        self.story.tell_intent("acme")
        self.story.tell_final()
        key, record = tale.key("acme").keyid, self.story.records["final"]
        nonces = {key: tale.nonce_of("acme")}
        run = bytes.fromhex(self.story.run)
        drawn = sample_steps(run, bytes.fromhex(record), nonces, 1000, 20)
        self.seed = spread_seed(record, key, {key: nonces[key].hex()})
        self.results = [self.result(step, self.seed) for step in sorted({1000, *drawn})]

    def result(self, step: int, seed: int) -> dict[str, Any]:
        return {
            "step": step,
            "outcome": "pass",
            "words": "",
            "attempt": 1,
            "row": "",
            "differs": [],
            "repeats": "equal",
            "spreadSeed": f"{step_seed(seed, step):016x}",
            **dict.fromkeys(STATISTICS, QUARTER),
        }

    def check(self, **changes: Any) -> Any:
        """Sign the receipt over the results as they are now, then check the file."""
        root = tree_root([leaf_hash(canonical.encode(r)) for r in self.results]).hex()
        told: dict[str, Any] = {"method": "bounded", "worst": Worst(*[QUARTER] * 6)}
        self.story.tell_audit("acme", **{**told, "results_root": root, **self.audit})
        document: dict[str, Any] = {
            "version": 1,
            "receipt": self.story.records["audit acme"],
            "run": self.story.run,
            "final": self.story.records["final"],
            "resultsRoot": root,
            "results": self.results,
            "checks": {"init": {"verdict": "pass", "words": ""}},
            "spreadSeed": f"{self.seed:016x}",
            "milliseconds": 5,
            **changes,
        }
        self.document = canonical.encode(document)
        return check_results(self.document, self.story.proof())


def refused(shown: Shown, words: str, **changes: Any) -> None:
    with pytest.raises(RefusedError, match=words) as caught:
        shown.check(**changes)
    assert caught.value.check == "results"


def test_results_of_an_honest_audit_hold(tale: ModuleType) -> None:
    found = Shown(tale).check()
    assert len(found.results) == 21
    assert all(result.weighed for result in found.results)


def test_noise_that_the_auditor_drew_for_himself_is_refused(tale: ModuleType) -> None:
    shown = Shown(tale)
    shown.seed += 1
    shown.results = [shown.result(r["step"], shown.seed) for r in shown.results]
    refused(shown, "spreadSeed is not the one that follows")


def test_noise_drawn_again_for_a_single_step_is_refused(tale: ModuleType) -> None:
    for other in ("0" * 16, ""):
        shown = Shown(tale)
        shown.results[3]["spreadSeed"] = other
        refused(shown, f"step {shown.results[3]['step']} was weighed with another noise")


def test_step_that_was_not_weighed_needs_no_noise(tale: ModuleType) -> None:
    shown = Shown(tale)
    shown.results[3] |= {"spreadSeed": "", **dict.fromkeys(STATISTICS)}
    assert not shown.check().results[3].weighed


def test_results_under_another_root_are_refused(tale: ModuleType) -> None:
    shown = Shown(tale)
    results = [{**r, "words": "better"} for r in shown.results]
    root = tree_root([leaf_hash(canonical.encode(r)) for r in results]).hex()
    for changes in ({"results": results}, {"results": results, "resultsRoot": root}):
        refused(shown, "another root", **changes)
        shown.story.drop_last()


@pytest.mark.parametrize("field", ["run", "final"])
def test_results_of_another_run_or_final_are_refused(tale: ModuleType, field: str) -> None:
    refused(Shown(tale), "not the receipt's", **{field: "0" * 64})


def test_results_without_their_receipt_are_refused(tale: ModuleType) -> None:
    refused(Shown(tale), "no receipt 0000", receipt="0" * 64)


def test_receipt_that_counts_other_outcomes_is_refused(tale: ModuleType) -> None:
    shown = Shown(tale)
    shown.results[0]["outcome"] = "refuted"
    refused(shown, "counts other outcomes")
    shown = Shown(tale, counts=Counts(20, 0, 1, 0))
    refused(shown, "counts other outcomes")


def test_receipt_whose_worst_is_not_the_largest_is_refused(tale: ModuleType) -> None:
    for name in STATISTICS:
        for larger in ((0.5).hex(), "nan"):
            shown = Shown(tale)
            shown.results[5][name] = larger
            refused(shown, "is not the largest one")
    shown = Shown(tale, worst=Worst(*["nan"] * 6), counts=Counts(20, 0, 1, 0))
    shown.results[5] |= {"outcome": "unattestable", **dict.fromkeys(STATISTICS, "nan")}
    assert shown.check().results[5].outcome == "unattestable"


def test_check_of_the_run_that_the_receipt_denies_is_refused(tale: ModuleType) -> None:
    for checks in (
        {"init": {"verdict": "fail", "words": ""}},
        {"more": {"verdict": "pass", "words": ""}},
    ):
        refused(Shown(tale), "is not what the receipt says", checks=checks)


def test_step_of_the_sample_without_a_result_is_refused(tale: ModuleType) -> None:
    for place, step in ((0, 7), (-1, 999)):
        shown = Shown(tale)
        missing = shown.results[place]["step"]
        others = {r["step"] for r in shown.results} - {missing}
        assert step not in others
        shown.results = [shown.result(s, shown.seed) for s in sorted({*others, step})]
        refused(shown, f"step {missing:,} is in the sample")


def test_sample_larger_than_the_results_is_refused_before_it_is_drawn(tale: ModuleType) -> None:
    """The proof is a stranger's until it is verified: its numbers alone may take for ever."""
    shown = Shown(tale, k=1000, steps=21, counts=Counts(21, 0, 0, 0))
    refused(shown, "results for a sample of")


def test_proof_without_its_contract_is_refused(tale: ModuleType) -> None:
    shown = Shown(tale)
    shown.check()
    proof = shown.story.proof()
    kept = tuple(r for r in proof.records if not isinstance(r.statement, ContractStatement))
    document = shown.document
    with pytest.raises(RefusedError, match="does not hold one contract"):
        check_results(document, dataclasses.replace(proof, records=kept))


def test_steps_out_of_order_or_beyond_the_run_are_refused(tale: ModuleType) -> None:
    shown = Shown(tale)
    shown.results = shown.results[::-1]
    refused(shown, "do not rise")
    shown = Shown(tale)
    shown.results[-1] = shown.result(1001, shown.seed)
    refused(shown, "beyond the contract")


def test_other_spelling_is_no_results_file(tale: ModuleType) -> None:
    with pytest.raises(FormatError):
        Shown(tale).check(more=1)
