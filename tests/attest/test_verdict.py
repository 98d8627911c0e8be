"""What the client concludes: a level no higher than foreign operators have earned it, in words."""

import json
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.level import Level
from attest.trust import PropertyDemand, Requirement
from attest.verdict import percent

GOLDEN = """\
sampled by acme: 459 of 10,000 steps
run       {run}
contract  {contract}
trainer   lab (named by the policy)
log       log.example/runs, 20 entries, cosigned by wit-a, wit-b at 2026-09-21T14:12:20Z
steps     10,000 in 1 attempt; 1 run, 1 final under the contract
audit     acme: 459 of 459 steps passed; init pass, export pass, line pass, walk pass, \
drift no null known
coverage  1 % bad steps escape with p = 0.89 % (459 of 10,000 steps, 1 try)
          one single bad step escapes with p = 95.5 %
property  accuracy: validated (1 of 2 operators: acme); 280 of 297 correct; at least 9/10 promised
checked   omissions: by a status of watch, 60 s old
doubt     history not checked: no memory of the log was given
required  sampled, accuracy: met
"""

GOLDEN_SELF = """\
logged (self): integrity, not honesty
run       {run}
contract  {contract}
trainer   lab (named by the policy)
log       log.example/runs, 5 entries, cosigned by nobody but the trainer
steps     10,000 in 1 attempt
audit     lab: 459 of 459 steps passed; init pass, export pass, line pass, walk pass, \
drift no null known (self-sampled: no sample)
coverage  1 % bad steps escape with p = 100 % (0 of 10,000 steps, tries not counted)
          one single bad step escapes with p = 100 %
property  accuracy: not evaluated; at least 9/10 promised
doubt     omissions not checked: no status by a monitor
doubt     history not checked: no memory of the log was given
required  logged: met
"""


def test_golden_text_of_a_sampled_run(tale: ModuleType) -> None:
    story = tale.honest(steps=10_000, k=459)
    verdict = story.verify()
    assert verdict.text() == GOLDEN.format(run=story.run, contract=story.contract.id)
    assert verdict.exit_code == 0


def own_run(tale: ModuleType) -> Any:
    story = tale.Story(steps=10_000, k=459)
    story.tell_contract(author="lab")
    story.tell_genesis()
    story.tell_attempt()
    story.tell_final()
    story.tell_audit("lab-audit", sources=())
    return story


def test_golden_text_of_a_run_about_itself(tale: ModuleType) -> None:
    story = own_run(tale)
    verdict = story.verify(policy=tale.own_policy())
    assert verdict.text() == GOLDEN_SELF.format(run=story.run, contract=story.contract.id)
    assert verdict.exit_code == 0


def test_no_audit_lifts_a_policy_of_one_operator(tale: ModuleType) -> None:
    story = tale.Story()
    story.tell_contract(author="lab")
    story.tell_genesis()
    story.tell_attempt()
    story.tell_intent("lab-audit")
    story.tell_final()
    story.tell_audit("lab-audit")
    story.tell_status(monitor="lab")
    policy = tale.own_policy()
    verdict = story.verify(policy=policy)
    assert verdict.headline() == "logged (self): integrity, not honesty"
    assert verdict.audits[0].shortfall == "self-sampled"
    demanding = replace(policy, require=Requirement(Level.WITNESSED))
    assert story.verify(policy=demanding).exit_code == 1


# --- requirement ---


def test_policy_decides_what_is_enough(tale: ModuleType) -> None:
    def code(level: Level, *demands: PropertyDemand) -> int:
        policy = tale.policy(require=Requirement(level, demands))
        return tale.honest().verify(policy=policy).exit_code

    assert code(Level.LOGGED) == code(Level.WITNESSED) == code(Level.SAMPLED) == 0
    assert code(Level.REPRODUCED) == 1
    assert code(Level.LOGGED, PropertyDemand("accuracy", 1)) == 0
    assert code(Level.LOGGED, PropertyDemand("accuracy", 2)) == 1
    assert code(Level.LOGGED, PropertyDemand("fairness", 0)) == 1


def test_asserted_property_is_enough_only_where_no_operator_is_asked_for(
    tale: ModuleType,
) -> None:
    story = tale.Story()
    story.open()
    story.tell_final()
    story.tell_property("lab-audit")
    story.tell_status()
    for operators, code in ((0, 0), (1, 1)):
        require = Requirement(Level.LOGGED, (PropertyDemand("accuracy", operators),))
        assert story.verify(policy=tale.policy(require=require)).exit_code == code


def test_property_is_not_met_while_a_denial_could_be_left_out(tale: ModuleType) -> None:
    story = tale.honest()
    for operators in (0, 1):
        require = Requirement(Level.LOGGED, (PropertyDemand("accuracy", operators),))
        policy = tale.policy(require=require)
        assert story.verify(policy=policy).exit_code == 0
        verdict = story.verify(story.proof_but("status", sizes=()), policy=policy)
        assert verdict.exit_code == 1
        (words,) = verdict.unmet
        assert words == (
            "property accuracy may be denied by a record left out: omissions not checked"
        )


def test_verdict_as_json_says_the_same(tale: ModuleType) -> None:
    verdict = tale.honest().verify()
    value = json.loads(json.dumps(verdict.to_json()))
    assert value["level"] == "sampled"
    assert value["headline"] == verdict.headline()
    assert value["exitCode"] == 0
    assert value["coverage"]["passed"] == 20
    assert value["audits"][0]["operator"] == "acme"
    assert value["properties"][0]["validators"] == ["acme"]


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.5, "50 %"),
        (0.9541, "95.5 %"),
        (0.99999, "100 %"),
        (0.00992, "0.992 %"),
        (0.009921, "0.993 %"),
        (1e-5, "0.001 %"),
        (1e-9, "1e-7 %"),
        (1.2345e-20, "1.24e-18 %"),
        (5e-324, "5e-322 %"),
    ],
)
def test_probability_is_rounded_up_and_never_down(p: float, text: str) -> None:
    assert percent(p) == text
