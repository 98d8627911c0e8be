"""From a real log on disk to a verdict: records admitted, witnessed, watched, proven, verified."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.assembly import assemble
from attest.client import verify_run
from attest.keys import Role
from attest.log.sequencer import LocalLog
from attest.memory import Memory
from attest.monitor import status
from attest.policy import parse_policy, policy_text, self_policy
from attest.proof import FULL_PROOF_BYTES, MAX_PROOF_BYTES, encode_proof
from attest.trust import NumericsDemand, Policy, WitnessEntry


@pytest.fixture
def log(tale: ModuleType, tmp_path: Path) -> Iterator[LocalLog]:
    with LocalLog.create(
        tmp_path / "log", tale.key("log"), tale.key("wit-a"), tale.ORIGIN, clock=lambda: tale.NOW
    ) as made:
        yield made


def logged(tale: ModuleType, log: LocalLog, story: Any) -> None:
    """Append what the story has told to the log, and expect it in the same places."""
    names = (*tale.ROLES, "stranger")
    envelopes = [story.entry(i) for i in range(log.size, len(story.leaves))]
    start = log.size
    indices = log.append(envelopes, keys=[tale.key(name).public for name in names])
    assert indices == list(range(start, len(story.leaves)))


def whole_run(tale: ModuleType, log: LocalLog, author: str = "owner") -> Any:
    """Tell a run of two attempts that the log admits, line by line."""
    story = tale.Story(steps=3, k=2)
    story.tell_contract(author=author)
    story.tell_genesis()
    story.tell_attempt()
    story.tell_intent("acme")
    first = story.tell_step(1)
    story.tell_attempt(number=2, step=1, resumed_from=first)
    rows = [story.row]
    for step in (2, 3):
        story.tell_step(step, attempt=2, prev=rows[-1].hash().hex())
        rows.append(story.row)
    story.tell_final()
    story.tell_audit("acme")
    story.tell_property("acme")
    logged(tale, log, story)
    return story


def watch(tale: ModuleType, log: LocalLog, story: Any) -> None:
    log.checkpoint()
    envelope = status(log, story.contract.id, tale.key("watch"), "watch")
    log.append([envelope], keys=[tale.key("watch").public])
    log.checkpoint()


def reader(tale: ModuleType, log: LocalLog) -> Policy:
    witnesses = (WitnessEntry(log.names.witness, "wit-a"),)
    return tale.policy(witnesses=witnesses, quorum=1)


def test_run_in_a_real_log_is_proven_and_sampled(
    tale: ModuleType, log: LocalLog, tmp_path: Path
) -> None:
    story = whole_run(tale, log)
    watch(tale, log, story)
    proof = encode_proof(assemble(log, story.run, log.published()))
    memory = Memory(tmp_path / "state")
    policy = reader(tale, log)
    demand = replace(policy, numerics=NumericsDemand(min_k=2))
    verdict = verify_run(proof, demand, history=memory, now=tale.NOW + 9)
    assert verdict.headline() == "sampled by acme: 2 of 3 steps"
    assert verdict.exit_code == 0
    assert len(proof) <= 16 * 1024

    # The log grows; a later proof extends what the reader remembers.
    story.tell_nonce("acme")
    log.append([story.entry(len(story.leaves) - 1)], keys=[tale.key("acme").public])
    log.checkpoint()
    size = memory.newest(policy.log.key).checkpoint.size
    later = encode_proof(assemble(log, story.run, log.published(), sizes=[size]))
    grown = verify_run(later, demand, history=memory, now=tale.NOW + 9)
    assert "history: the checkpoint extends the one remembered" in grown.checked
    from_log = Memory(tmp_path / "state", log.consistency)
    assert verify_run(later, demand, history=from_log, now=tale.NOW + 9).checked == grown.checked


def test_run_about_itself_is_logged_self_whoever_audited_it(
    tale: ModuleType, log: LocalLog
) -> None:
    story = whole_run(tale, log, author="lab")
    proof = encode_proof(assemble(log, story.run, log.checkpoint()))
    policy = self_policy(
        operator="lab",
        origin=log.origin,
        log=log.names.log,
        witness=log.names.witness,
        keys={Role.AUTHOR: tale.key("owner").public, Role.RUN: tale.key("lab").public},
    )
    verdict = verify_run(proof, parse_policy(policy_text(policy)), now=tale.NOW)
    assert verdict.headline() == "logged (self): integrity, not honesty"
    assert verdict.exit_code == 0
    assert "omissions not checked: no status by a monitor" in verdict.doubts
    assert any("audit at index" in doubt for doubt in verdict.doubts)


def test_log_full_of_strangers_audits_still_gives_a_proof(tale: ModuleType, log: LocalLog) -> None:
    story = whole_run(tale, log)
    for number in range(300):
        who = f"stranger-{number}"
        story.tell_audit(who, sources=(), name="noise", environment={"note": "x" * 3900})
    envelopes = [story.entry(i) for i in range(log.size, len(story.leaves))]
    strangers = [tale.key(f"stranger-{number}").public for number in range(300)]
    log.append(envelopes, keys=strangers)
    watch(tale, log, story)
    preferred = [tale.key("acme").keyid]
    proof = encode_proof(assemble(log, story.run, log.published(), preferred=preferred))
    assert FULL_PROOF_BYTES <= len(proof) <= MAX_PROOF_BYTES
    verdict = verify_run(proof, reader(tale, log), now=tale.NOW + 9)
    assert verdict.level.text == "witnessed"
    assert [line.operator for line in verdict.audits] == ["acme"]
    assert any("the proof is full and leaves out" in words for words in verdict.doubts)
