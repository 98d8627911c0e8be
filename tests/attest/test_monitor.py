"""A monitor's status: everything under a contract, and nothing if the log lies about its root."""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.envelope import Envelope, verify_signatures
from attest.errors import RefusedError
from attest.keys import Role
from attest.log.sequencer import LocalLog
from attest.merkle import leaf_hash, tree_root
from attest.monitor import status
from attest.statements import Conflict, KeyEvent, RunEntries, Status, decode_statement

ORIGIN = "log.example/runs"


@pytest.fixture(scope="module")
def lab() -> ModuleType:
    path = Path(__file__).resolve().parent / "log" / "lab.py"
    spec = importlib.util.spec_from_file_location("tests_attest_monitor_lab", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Shown:
    """A log as its readers see it."""

    def __init__(self, lab: ModuleType, envelopes: Sequence[Envelope]) -> None:
        self.envelopes = list(envelopes)
        self.root = tree_root([leaf_hash(envelope.to_bytes()) for envelope in envelopes])
        self._key = lab.key("log")

    def published(self) -> bytes:
        head = Checkpoint(ORIGIN, len(self.envelopes), self.root)
        return sign_checkpoint(head, self._key).to_bytes()

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        return iter(self.envelopes[start:stop])


def told(lab: ModuleType, log: Any, contract: str) -> Status:
    envelope = status(log, contract, lab.key("watch"), "watchers")
    verify_signatures(envelope, {lab.key("watch").keyid: lab.key("watch").public})
    statement = decode_statement(envelope.payload)
    assert isinstance(statement, Status)
    return statement


def conflict(lab: ModuleType, one: Envelope, two: Envelope) -> Envelope:
    first, second = sorted((one, two), key=lambda e: e.record_hash())
    return lab.signed(Conflict(first, second), "court")


def test_status_lists_every_record_under_the_contract_by_run(lab: ModuleType):
    one, two, other = lab.Lab(), lab.Lab(name="second"), lab.Lab(name="third", steps=7)
    final = one.final(3)
    event = KeyEvent(
        "revoke",
        lab.key("acme").public.hex(),
        Role.AUDITOR,
        ORIGIN,
        3,
        lab.key("o").public.hex(),
        None,
    )
    unrelated = KeyEvent(
        "revoke",
        lab.key("nobody").public.hex(),
        Role.AUDITOR,
        ORIGIN,
        3,
        lab.key("o").public.hex(),
        None,
    )
    envelopes = [
        one.published,  # 0
        other.published,
        one.genesis,  # 2
        one.attempt(1),
        other.genesis,  # 4
        two.genesis,
        one.intent("acme", about="contract"),  # 6
        one.intent("acme"),
        *one.train(1, 1, 3),  # 8 to 10
        two.intent("globex"),
        other.intent("globex", about="contract"),  # 12
        two.attempt(1),
        one.attempt(2, after=(1, 2)),  # 14
        final,
        one.audit("acme", final),  # 16
        one.property("acme", final),
        conflict(lab, final, one.final(3, loss=1)),  # 18
        conflict(lab, one.steps[1][1], two.step(1, 1)),
        lab.signed(event, "o"),  # 20
        lab.signed(unrelated, "o"),
        one.status("watch", ORIGIN, 3),  # 22
    ]
    log = Shown(lab, envelopes)
    statement = told(lab, log, one.contract.id)
    assert (statement.contract, statement.monitor) == (one.contract.id, "watchers")
    assert (statement.log.origin, statement.log.size) == (ORIGIN, len(envelopes))
    assert statement.log.root == log.root.hex()
    assert statement.runs == (
        RunEntries(one.run, 2, (3, 14), (15,), (7,), (16,), (17,), (18, 19)),
        RunEntries(two.run, 5, (13,), (), (11,), (), (), (19,)),
    )
    assert statement.contract_intents == (6,)
    assert statement.key_events == (20,)


def test_status_lists_the_events_of_a_keys_whole_line(lab: ModuleType):
    trainer = lab.Lab()
    names = ("first", "second", "acme", "later")

    def rotated(old: str, new: str) -> Envelope:
        key, successor = (lab.key(name).public.hex() for name in (old, new))
        owner = lab.key("acme-owner").public.hex()
        event = KeyEvent("rotate", key, Role.AUDITOR, ORIGIN, 0, owner, successor)
        return lab.signed(event, "acme-owner", new)

    line = [rotated(old, new) for old, new in zip(names, names[1:], strict=False)]
    stranger = rotated("x", "y")
    envelopes = [trainer.published, trainer.genesis, line[1], line[0], stranger, line[2]]
    log = Shown(lab, [*envelopes, trainer.intent("acme")])
    # Only the third key signed here: what made it the successor of the first is listed too.
    assert told(lab, log, trainer.contract.id).key_events == (2, 3, 5)


def test_contract_without_runs_has_an_empty_status(lab: ModuleType):
    statement = told(lab, Shown(lab, [lab.Lab().published]), lab.digest("no such contract"))
    assert (statement.runs, statement.contract_intents, statement.key_events) == ((), (), ())


@pytest.mark.parametrize("change", ["drop", "swap", "repeat"])
def test_log_that_shows_other_entries_than_it_signs_gets_no_status(lab: ModuleType, change: str):
    trainer = lab.Lab()
    log = Shown(lab, [*trainer.opening(), *trainer.train(1, 1, 3)])
    size = len(log.envelopes)
    if change == "drop":
        log.envelopes = [*log.envelopes[:4], log.envelopes[5], log.envelopes[5]]
    elif change == "swap":
        log.envelopes[3], log.envelopes[4] = log.envelopes[4], log.envelopes[3]
    else:
        log.envelopes[5] = log.envelopes[4]
    assert len(log.envelopes) == size
    with pytest.raises(RefusedError) as refusal:
        status(log, trainer.contract.id, lab.key("watch"), "watchers")
    assert refusal.value.check == ("root" if change == "swap" else "duplicate record")


def test_genesis_told_again_does_not_begin_the_run_anew(lab: ModuleType):
    trainer = lab.Lab()
    opening, final = trainer.opening(), trainer.final(3)
    audit = trainer.audit("acme", final)
    log = Shown(lab, [*opening, *trainer.train(1, 1, 3), final, audit, trainer.genesis])
    with pytest.raises(RefusedError) as refusal:
        status(log, trainer.contract.id, lab.key("watch"), "watchers")
    assert refusal.value.check == "duplicate record"


def test_log_that_withholds_its_last_entry_gets_no_status(lab: ModuleType):
    trainer = lab.Lab()
    log = Shown(lab, trainer.opening())

    class Withholding(Shown):
        def entries(self, start: int, stop: int) -> Iterator[Envelope]:
            return iter(self.envelopes[start : stop - 1])

    short = Withholding(lab, log.envelopes)
    with pytest.raises(RefusedError):
        status(short, trainer.contract.id, lab.key("watch"), "watchers")


def test_status_of_a_local_log_is_admitted_by_it(lab: ModuleType, tmp_path: Path):
    trainer = lab.Lab()
    keys = lab.key("log"), lab.key("witness")
    with LocalLog.create(tmp_path / "log", *keys, ORIGIN) as log:
        log.append([*trainer.opening(), *trainer.train(1, 1, 3)], keys=[trainer.author])
        log.checkpoint()
        log.append([trainer.step(1, 4)])
        envelope = status(log, trainer.contract.id, lab.key("watch"), "watchers")
        statement = decode_statement(envelope.payload)
        assert isinstance(statement, Status)
        assert statement.log.size == 6
        assert statement.runs[0].attempts == (2,)
        assert log.append([envelope], keys=[lab.key("watch").public]) == [7]
