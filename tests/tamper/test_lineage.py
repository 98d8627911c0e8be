"""From contract to final record: one unbroken line of one run."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.contract import Numerics
from attest.errors import FormatError
from attest.numerics_class import CLASSES
from attest.proof import encode_proof
from attest.trust import NumericsDemand


def test_contract_and_run_must_be_among_those_accepted(tale: ModuleType, refused) -> None:
    story = tale.honest()
    refused("accepted", story, policy=tale.policy(contracts=("a" * 64,)))
    refused("accepted", story, policy=tale.policy(runs=("a" * 64,)))
    both = tale.policy(contracts=("a" * 64, story.contract.id), runs=(story.run,))
    assert story.verify(policy=both).level.text == "sampled"


def test_genesis_of_another_contract_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open(genesis={"contract": tale.digest("another contract")})
    story.tell_final()
    refused("contract", story, story.proof_of(range(4)))


def test_contract_whose_id_is_not_its_digest_is_refused(tale: ModuleType) -> None:
    data = encode_proof(tale.honest().proof())
    data = data.replace(b'"batchSize":64', b'"batchSize":65')
    with pytest.raises(FormatError, match=r"contract\.subject"):
        tale.verify_run(data, tale.policy(), now=tale.NOW)


def test_numerics_beyond_the_policy_are_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    refused("numerics", story, policy=tale.policy(numerics=NumericsDemand(classes=("bf16",))))
    limits = {
        "unitRoundoff": 2.0**-24,
        "c": 4.0,
        "cRow": 10.0,
        "cap": 1.0e-4,
        "a2": 1.0e-3,
        "a2Cold": 0.1,
    }
    exact = NumericsDemand(caps=tuple(limits.items()))
    assert story.verify(policy=tale.policy(numerics=exact)).steps == 1000
    for name, limit in limits.items():
        below = NumericsDemand(caps=((name, limit * 0.999),))
        refused("numerics", story, policy=tale.policy(numerics=below))


def test_a_check_that_does_not_apply_is_above_every_cap_on_it(tale: ModuleType, refused) -> None:
    story = tale.Story()
    lax = Numerics.of(replace(CLASSES["f32"], a2_cold=None))
    story.tell_contract(numerics=lax)
    story.tell_genesis()
    story.tell_attempt()
    story.tell_final()
    assert story.verify(policy=tale.policy()).steps == 1000
    demand = NumericsDemand(caps=(("a2Cold", 1e9),))
    refused("numerics", story, policy=tale.policy(numerics=demand))


def resumed(tale: ModuleType, *attempts: dict[str, Any], **final: Any) -> Any:
    """Tell a run of several attempts; `steps` are logged in one, `resume` names one of them."""
    story = tale.Story()
    story.tell_contract()
    story.tell_genesis()
    for number, changes in enumerate(attempts, start=1):
        told = {name: value for name, value in changes.items() if name not in ("steps", "resume")}
        if "resume" in changes:
            told["resumed_from"] = story.records[changes["resume"]]
        story.tell_attempt(**{"number": number, **told})
        for step in changes.get("steps", ()):
            story.tell_step(step, attempt=number)
    story.tell_final(**final)
    return story


def test_honest_restarts_pass(tale: ModuleType) -> None:
    story = resumed(
        tale,
        {"steps": [4, 5]},
        {"step": 4, "resume": "step-4", "steps": [6]},
        {"step": 4, "resume": "step-4"},
        {"step": 6, "resume": "step-6"},
        {},
    )
    assert story.verify().attempts == 5
    assert resumed(tale, *({} for _ in range(12))).verify().attempts == 12


def test_restart_from_a_segment_passes_under_its_attempts_first_key(
    tale: ModuleType, refused
) -> None:
    for signers, check in ((["worker-1"], ""), (["worker-1", "worker-1b"], "envelope signatures")):
        story = tale.Story()
        story.tell_contract()
        story.tell_genesis()
        workers = tuple(tale.key(name).public.hex() for name in ("worker-1", "worker-1b"))
        story.tell_attempt(worker_keys=workers, processes=2)
        segment = tale.segment(story.run, story.records["attempt-1"], 1, 64)
        record = story.add("segment", segment, *signers)
        story.tell_attempt(number=2, step=64, resumed_from=record)
        story.tell_final()
        if check:
            refused(check, story)
        else:
            assert story.verify().attempts == 2


def test_attempt_of_another_run_is_refused(tale: ModuleType, refused) -> None:
    other = tale.digest("another run")
    story = resumed(tale, {"run": other, "resumed_from": other}, attempts=1)
    refused("attempts", story, story.proof_and("attempt-1"))


@pytest.mark.parametrize("dropped", ["attempt-1", "attempt-2"])
def test_attempt_left_out_is_refused(tale: ModuleType, refused, dropped: str) -> None:
    story = resumed(tale, {}, {})
    refused("attempts", story, story.proof_but(dropped))


def test_attempts_must_be_as_many_as_the_final_counts(tale: ModuleType, refused) -> None:
    refused("attempts", resumed(tale, {}, attempts=2))
    refused("attempts", resumed(tale, {}, {}, attempts=1))


def test_attempts_must_be_numbered_in_log_order(tale: ModuleType, refused) -> None:
    refused("attempts", resumed(tale, {}, {"number": 3}))
    refused("attempts", resumed(tale, {"number": 2}, {"number": 1}))


def test_attempts_too_many_to_list_are_not_listed(tale: ModuleType, refused) -> None:
    story = resumed(tale, *({} for _ in range(9)))
    names = [f"attempt-{n}" for n in range(1, 10)]
    refused("attempts", story, story.proof_and(*names))
    refused("attempts", story, story.proof_and("attempt-1"))


def test_resumption_must_be_shown(tale: ModuleType, refused) -> None:
    story = resumed(tale, {"steps": [4]}, {"step": 4, "resume": "step-4"})
    refused("attempts", story, story.proof_but("step-4"))


def test_resumption_must_be_from_the_step_it_claims(tale: ModuleType, refused) -> None:
    refused("attempts", resumed(tale, {"steps": [4]}, {"step": 5, "resume": "step-4"}))
    past = resumed(tale, {"steps": [1001]}, {"step": 1001, "resume": "step-1001"})
    refused("attempts", past)


@pytest.mark.parametrize("wrong", ["run", "attempt"])
def test_resumption_from_another_run_or_attempt_is_refused(
    tale: ModuleType, refused, wrong: str
) -> None:
    story = tale.Story()
    story.open()
    story.records["attempt-9"] = tale.digest("attempt of nobody")
    if wrong == "run":
        step = story.tell_step(4, run=tale.digest("another run"))
    else:
        step = story.tell_step(4, attempt=9, signers=("worker-1",))
    story.tell_attempt(number=2, step=4, resumed_from=step)
    story.tell_final()
    refused("attempts", story)


def test_resumed_step_logged_after_its_attempt_is_refused(tale: ModuleType, refused) -> None:
    first, story = tale.Story(), tale.Story()
    first.open()
    step = first.tell_step(4)
    story.open()
    story.tell_attempt(number=2, step=4, resumed_from=step)
    assert story.tell_step(4) == step
    story.tell_final()
    refused("order", story)


def test_genesis_logged_before_its_contract_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.contract = tale.contract(story.steps)
    story.tell_genesis()
    story.tell_contract()
    story.tell_attempt()
    story.tell_final()
    refused("order", story)


def test_attempt_logged_after_the_final_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open()
    story.tell_final(attempts=2)
    story.tell_attempt(number=2)
    refused("order", story)


@pytest.mark.parametrize("attempts", [1, 9])
def test_final_logged_before_its_genesis_is_refused(
    tale: ModuleType, refused, attempts: int
) -> None:
    whole, story = tale.Story(), tale.Story()
    whole.open()
    whole.tell_final()
    story.tell_contract()
    story.records["genesis"] = whole.run
    story.tell_final(attempts=attempts)
    story.tell_genesis()
    story.tell_attempt()
    refused("order", story, story.proof_of(range(4 if attempts == 1 else 3)))


def test_final_of_another_run_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open()
    story.tell_final(run=tale.digest("another run"))
    refused("final", story, story.proof_of(range(4)))


def test_final_of_fewer_steps_than_the_contract_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open()
    line = replace(tale.honest().final.line, count=1000)
    story.tell_final(steps=999, line=line)
    refused("final", story)


def test_line_that_is_not_all_steps_and_genesis_is_refused(tale: ModuleType) -> None:
    data = encode_proof(tale.honest().proof()).replace(b'"count":1001', b'"count":1000')
    with pytest.raises(FormatError, match=r"final\.line\.count"):
        tale.verify_run(data, tale.policy(), now=tale.NOW)


def test_second_final_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    second = replace(story.final, state_root=tale.digest("another state"))
    story.add("final 2", second, "lab")
    refused("one final", story, story.proof_and("final 2"))
    # Out of the proof, the status still tells of it.
    story.tell_status()
    indices = [r.index for r in story.proof().records if r.index != story.at["final 2"]]
    refused("one final", story, story.proof_of(indices, sizes=(story.at["status"],)))


def test_trainer_not_named_by_the_policy_is_taken_at_its_word_and_said_so(
    tale: ModuleType,
) -> None:
    verdict = tale.honest().verify(policy=tale.policy(without=("lab",)))
    assert not verdict.trainer_named
    assert any("own word" in doubt for doubt in verdict.doubts)
