"""Key events in a log: who may say what of a key, and from which index on it holds."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.envelope import Envelope
from attest.errors import RefusedError
from attest.keys import Role
from attest.log.fsck import fsck
from attest.log.sequencer import LocalLog
from attest.log.snapshot import Snapshot
from attest.statements import KeyEvent

AUDITORS = ("acme", "acme-2", "acme-owner", "thief")


@pytest.fixture
def trainer(lab: ModuleType, log: LocalLog) -> Any:
    """Return a lab whose contract, genesis and first attempt are logged."""
    trainer = lab.Lab()
    log.append(trainer.opening(), keys=[trainer.author])
    return trainer


@pytest.fixture
def say(lab: ModuleType, log: LocalLog) -> Any:
    """Return `say(action, index, *signers, ...)`, which logs an event of the key `acme`."""

    def say(
        action: str,
        index: int,
        *signers: str,
        key: str = "acme",
        role: Role = Role.AUDITOR,
        owner: str = "",
    ) -> int:
        successor = lab.key("acme-2").public.hex() if action == "rotate" else None
        named = lab.key(owner or signers[0]).public.hex()
        public = lab.key(key).public.hex()
        event = KeyEvent(action, public, role, log.origin, index, named, successor)
        return append(lab, log, lab.signed(event, *signers))

    return say


def append(lab: ModuleType, log: LocalLog, envelope: Envelope) -> int:
    (index,) = log.append([envelope], keys=[lab.key(name).public for name in AUDITORS])
    return index


def code(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(RefusedError) as refusal:
        call(*arguments, **options)
    return refusal.value.check


def test_key_that_begins_signs_beside_its_owner(say: Any, trainer: Any) -> None:
    assert code(say, "endorse", 0, "acme-owner") == "signers"
    assert code(say, "rotate", 0, "acme-owner") == "signers"
    assert code(say, "rotate", 0, "acme-owner", "acme") == "signers"
    assert code(say, "revoke", 0, "thief", owner="acme-owner") == "signers"
    assert code(say, "endorse", 0, "acme-owner", "acme", "acme-2") == "signers"
    say("endorse", 0, "acme-owner", "acme")
    say("rotate", 0, "acme-owner", "acme-2")


def test_key_event_shows_the_roles_of_all_its_keys(
    say: Any, trainer: Any, lab: ModuleType, log: LocalLog
) -> None:
    say("endorse", 0, "acme-owner", "acme")
    # An owner's key signs nothing else, and a key's role does not change.
    assert code(append, lab, log, trainer.intent("acme-owner")) == "key-role"
    assert code(say, "revoke", 0, "acme-owner", role=Role.MONITOR) == "key-role"
    assert code(say, "endorse", 0, "acme", "acme-2", key="acme-2") == "key-role"
    assert code(say, "endorse", 0, "owner", "acme-2", key="acme-2") == "key-role"


def test_rotated_key_signs_before_the_index_and_its_successor_from_it_on(
    say: Any, trainer: Any, lab: ModuleType, log: LocalLog
) -> None:
    say("endorse", 0, "acme-owner", "acme")
    end = say("rotate", log.size + 2, "acme-owner", "acme-2") + 2
    assert code(append, lab, log, trainer.intent("acme-2")) == "key-ended"
    assert append(lab, log, trainer.intent("acme")) == end - 1
    assert code(append, lab, log, trainer.intent("acme", about="contract")) == "key-ended"
    assert append(lab, log, trainer.intent("acme-2")) == end


def test_batch_is_held_to_the_index_of_each_of_its_records(
    say: Any, trainer: Any, lab: ModuleType, log: LocalLog
) -> None:
    say("endorse", 0, "acme-owner", "acme")
    say("revoke", log.size + 2, "acme-owner")
    both = [trainer.intent("acme"), trainer.intent("acme", about="contract")]
    assert code(log.append, both, keys=[lab.key("acme").public]) == "key-ended"
    assert log.append(both[:1]) == [log.size - 1]


def test_log_obeys_only_the_owner_whom_the_key_named_first(
    say: Any, trainer: Any, lab: ModuleType, log: LocalLog
) -> None:
    say("revoke", 0, "thief")  # said of a key that no owner has claimed: noted, not obeyed
    append(lab, log, trainer.intent("acme"))
    say("endorse", 0, "acme-owner", "acme")
    say("endorse", 0, "thief", "acme")
    say("revoke", 1, "thief")
    append(lab, log, trainer.intent("acme", about="contract"))
    say("revoke", 0, "acme-owner")
    # An end is not taken back, by a later index or by another endorsement.
    say("revoke", 10**6, "acme-owner")
    assert code(say, "endorse", 1, "acme-owner", "acme") == "key-ended"
    assert code(append, lab, log, trainer.intent("acme", number=1)) == "key-ended"


def test_key_life_is_derived_again_from_entries_and_from_a_snapshot(
    say: Any, trainer: Any, lab: ModuleType, log: LocalLog, run_directory: Path
) -> None:
    say("endorse", 0, "acme-owner", "acme")
    say("rotate", log.size, "acme-owner", "acme-2")
    lives = log._derived.register.lives
    assert [life.owner for life in lives.values()] == [lab.key("acme-owner").public.hex()] * 2
    assert [life.end is None for life in lives.values()] == [False, True]
    kept = Snapshot(log._store.committed(), log._derived.register)
    assert Snapshot.from_bytes(kept.to_bytes()).register.lives == lives
    log.checkpoint()
    log.close()
    with LocalLog.open(run_directory / "log") as again:
        assert again._derived.register.lives == lives
        assert code(append, lab, again, trainer.intent("acme")) == "key-ended"
    fsck(run_directory / "log")
