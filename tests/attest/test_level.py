"""A level is no higher than operators other than the trainer's have earned it."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.level import Level
from attest.statements import Counts, Worst
from attest.trust import NumericsDemand


def audited(tale: ModuleType, **changes: Any) -> Any:
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme", **changes)
    story.tell_status()
    return story


def test_foreign_witnesses_and_no_audit_is_witnessed(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    story.tell_final()
    story.tell_status()
    verdict = story.verify()
    assert verdict.level is Level.WITNESSED
    assert verdict.headline().startswith("witnessed: ")
    assert verdict.unmet == ("the level is witnessed", "property accuracy is not evaluated")
    assert verdict.exit_code == 1


def test_witnesses_of_the_trainer_do_not_count(tale: ModuleType) -> None:
    base = tale.policy()
    own = replace(base, witnesses=(replace(base.witnesses[0], operator="lab"), base.witnesses[1]))
    verdict = tale.honest().verify(policy=own)
    assert verdict.level is Level.LOGGED
    assert verdict.headline() == "logged: integrity, not honesty"
    assert verdict.witnesses == ("wit-b",)
    # One foreign witness is enough where the quorum is one.
    assert tale.honest().verify(policy=replace(own, quorum=1)).level is Level.SAMPLED


WITHIN = Worst(*["0x1.0000000000000p-2"] * 6)
BOUNDED: dict[str, Any] = {
    "method": "bounded",
    "worst": WITHIN,
    "environment": {"class.backend": "cpu"},
}

SHORT: dict[str, tuple[dict[str, Any], str]] = {
    "bounded, walk not checked": (
        {**BOUNDED, "walk": "not checked"},
        "the walk test did not pass",
    ),
    "chosen": (
        {"sources": (), "sample": "chosen", "steps": 900, "counts": Counts(900, 0, 0, 0)},
        "steps were chosen",
    ),
    "without a nonce": ({"sources": ()}, "self-sampled"),
    "with a nonce, but called self": ({"sample": "self"}, "self-sampled"),
    "init not checked": ({"init": "not checked"}, "init, export and line did not all pass"),
    "export not checked": ({"export": "not checked"}, "init, export and line did not all pass"),
    "line not checked": ({"line": "not checked"}, "init, export and line did not all pass"),
    "a step withheld": ({"steps": 20, "counts": Counts(20, 0, 0, 1)}, "steps were withheld"),
    "many unattestable": (
        {"steps": 21, "counts": Counts(10, 0, 11, 0)},
        "11 steps could not be judged: the trainer's class decided which",
    ),
}


@pytest.mark.parametrize("name", SHORT)
def test_audit_that_falls_short_makes_no_sample(tale: ModuleType, name: str) -> None:
    changes, shortfall = SHORT[name]
    verdict = audited(tale, **changes).verify()
    assert verdict.audits[0].shortfall == shortfall
    assert verdict.level is Level.WITNESSED
    assert verdict.coverage.passed == 0
    assert (verdict.coverage.miss, verdict.coverage.escape) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 21, "counts": Counts(20, 0, 1, 0)}, "1 step could not be judged"),
        ({"steps": 21, "counts": Counts(15, 0, 6, 0)}, "6 steps could not be judged"),
        ({"steps": 18, "counts": Counts(18, 0, 0, 3)}, "steps were withheld"),
    ],
)
def test_sample_of_which_a_step_did_not_pass_has_no_probability(
    tale: ModuleType, changes: dict[str, Any], words: str
) -> None:
    verdict = audited(tale, **changes).verify()
    lost = changes["counts"].unattestable + changes["counts"].withheld
    assert verdict.level is Level.WITNESSED
    assert verdict.audits[0].passed == 20 - lost
    assert verdict.audits[0].shortfall.startswith(words)
    assert f"{20 - lost} of 20 steps passed" in verdict.text()
    assert f"no probability is stated: {lost} drawn step" in verdict.text()
    assert "p =" not in verdict.text()
    coverage: Any = verdict.to_json()["coverage"]
    assert (coverage["miss"], coverage["escape"]) == (None, None)


def test_probability_is_of_the_audit_that_passed_whole(tale: ModuleType) -> None:
    story = audited(tale, steps=21, counts=Counts(15, 0, 6, 0))
    story.drop_last()
    story.drop_last()
    story.drop_last()
    story.tell_intent("globex")
    story.tell_final()
    story.tell_audit("acme", steps=21, counts=Counts(15, 0, 6, 0))
    story.tell_audit("globex")
    story.tell_status()
    verdict = story.verify()
    assert (verdict.auditors, verdict.coverage.passed) == (("globex",), 20)
    assert verdict.coverage.escape == pytest.approx(1 - 20 / 1000)


def test_least_k_is_at_most_all_steps(tale: ModuleType) -> None:
    demand = NumericsDemand(min_k=5000)
    story = tale.honest(steps=30, k=30)
    assert story.verify(policy=tale.policy(numerics=demand)).level is Level.SAMPLED
    demand = NumericsDemand(min_k=21)
    assert tale.honest().verify(policy=tale.policy(numerics=demand)).level is Level.WITNESSED


def test_sample_rests_on_exactly_the_sources_of_the_policy(tale: ModuleType) -> None:
    both = tuple(sorted((tale.key("acme").keyid, tale.key("globex").keyid)))
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_intent("globex")
    story.tell_final()
    story.tell_audit("acme", sources=("acme", "globex"))
    story.tell_audit("globex")
    story.tell_status()
    shortfalls = [line.shortfall for line in story.verify(policy=tale.policy()).audits]
    assert shortfalls == ["its sources are not those of the policy", ""]
    listed = story.verify(policy=tale.policy(sources=both))
    assert [line.shortfall for line in listed.audits] == [
        "",
        "its sources are not those of the policy",
    ]


def test_sample_whose_only_source_is_the_trainers_is_self_sampled(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("lab-audit")
    story.tell_final()
    story.tell_audit("acme", sources=("lab-audit",))
    story.tell_status()
    policy = tale.policy(sources=(tale.key("lab-audit").keyid,))
    assert story.verify(policy=policy).audits[0].shortfall == "self-sampled"


@pytest.mark.parametrize("how", ["named", "pinned", "own word"])
def test_contracts_author_audits_nobody_who_names_himself(tale: ModuleType, how: str) -> None:
    base = tale.policy(without=() if how == "named" else ("lab",))
    keys = tuple(
        replace(e, operator="acme") if e.public == tale.key("owner").public else e
        for e in base.keys
    )
    story = tale.Story(steps=30, k=30)
    story.tell_contract(author="acme")
    story.tell_genesis()
    story.tell_attempt()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme", **ALL)
    story.tell_audit("globex", sources=(), sample="chosen", **ALL)
    story.tell_status()
    runs = (story.run,) if how == "pinned" else ()
    verdict = story.verify(policy=replace(base, keys=keys, runs=runs))
    level = Level.WITNESSED if how == "own word" else Level.REPRODUCED
    assert verdict.level is level
    assert any("the trainer's own word" in doubt for doubt in verdict.doubts) is (how != "named")
    if how == "own word":
        shortfall = "its auditor is the contract's author, who may be the trainer"
        assert verdict.audits[0].shortfall == shortfall


def test_nonce_that_served_an_earlier_final_is_no_source(tale: ModuleType) -> None:
    def told(*, between: bool) -> Any:
        story = tale.Story()
        story.tell_contract()
        story.tell_genesis(plan=tale.digest("the first run's plan"))
        if between:
            story.tell_intent("acme", about="contract")
        story.tell_final(name="first final", attempts=1)
        if not between:
            story.tell_intent("acme", about="contract")
        story.tell_genesis()
        story.tell_attempt()
        story.tell_final()
        story.tell_audit("acme")
        story.tell_status()
        return story

    fresh = told(between=False).verify()
    assert (fresh.level, fresh.runs, fresh.finals) == (Level.SAMPLED, 2, 2)
    burnt = told(between=True).verify()
    assert burnt.audits[0].shortfall == "its nonce served an earlier final record"
    assert burnt.level is Level.WITNESSED


def test_tries_multiply_the_miss_probability(tale: ModuleType) -> None:
    one = tale.honest().verify().coverage
    story = tale.Story()
    story.open()
    first = story.run
    story.tell_genesis(plan=tale.digest("another plan"))
    story.tell_attempt(environment={"hostname": "node-8"})
    story.records["genesis"] = first
    story.tell_intent("acme")
    story.tell_final(attempts=1)
    story.tell_audit("acme")
    story.tell_status()
    two = story.verify().coverage
    assert (one.tries, two.tries) == (1, 2)
    assert two.miss == pytest.approx(min(1.0, 2 * one.miss))
    assert two.escape == one.escape
    assert "2 tries" in two.text()[0]


ZERO = "0x0.0p+0"
ALL = {"k": 30, "steps": 30, "counts": Counts(30, 0, 0, 0), "worst": Worst(*[None] * 6)}


def reproduced(tale: ModuleType, second: dict[str, Any], who: str = "globex") -> Any:
    story = tale.Story(steps=30, k=30)
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme", **ALL)
    story.tell_audit(who, sources=(), **{"sample": "chosen", **ALL, **second})
    story.tell_status()
    return story.verify()


def test_all_steps_bit_for_bit_by_two_foreign_operators_is_reproduced(tale: ModuleType) -> None:
    verdict = reproduced(tale, {})
    assert verdict.level is Level.REPRODUCED
    assert verdict.headline() == "reproduced by acme, globex: all 30 steps"
    assert (verdict.coverage.miss, verdict.coverage.escape) == (0.0, 0.0)


@pytest.mark.parametrize(
    "second",
    [
        {"steps": 29, "counts": Counts(29, 0, 0, 0)},
        {"counts": Counts(29, 0, 1, 0)},
        {"steps": 29, "counts": Counts(29, 0, 0, 1)},
        {"method": "bounded", "worst": Worst(*[ZERO] * 6)},
        {"init": "not checked"},
        {"export": "not checked"},
        {"line": "not checked"},
    ],
)
def test_less_than_all_of_it_twice_is_not_reproduced(
    tale: ModuleType, second: dict[str, Any]
) -> None:
    assert reproduced(tale, second).level is Level.SAMPLED


def test_trainer_does_not_reproduce_itself(tale: ModuleType) -> None:
    assert reproduced(tale, {}, "lab-audit").level is Level.SAMPLED
