"""What the log takes: the right form, exactly the right keys, at a place where it may come."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.envelope import Envelope, Signature, sign
from attest.errors import RefusedError
from attest.keys import PrivateKey, Role
from attest.log.admission import REFUSALS
from attest.log.sequencer import LocalLog
from attest.statements import KeyEvent, Step, decode_statement, encode_statement

AUDITORS = ("acme", "globex")


@pytest.fixture
def trained(lab: ModuleType, log: LocalLog) -> Any:
    """Return a lab of two workers whose first three steps are logged."""
    trainer = lab.Lab(workers=2)
    log.append(trainer.opening(), keys=[trainer.author])
    log.append(trainer.train(1, 1, 3))
    introduce(lab, log, *AUDITORS)
    return trainer


def introduce(lab: ModuleType, log: LocalLog, *names: str) -> None:
    """Make keys known for the rest of the test: the log keeps a key only with a first record."""
    publics = [lab.key(name).public for name in names]
    append = log.append
    log.append = lambda envelopes, *, keys=(): append(envelopes, keys=[*keys, *publics])  # type: ignore[method-assign]


def refused(log: LocalLog, *envelopes: Envelope) -> str:
    size = log.size
    with pytest.raises(RefusedError) as refusal:
        log.append(envelopes)
    assert log.size == size
    assert "\n" not in str(refusal.value)
    return refusal.value.check


def altered(envelope: Envelope) -> Envelope:
    first, *others = envelope.signatures
    wrong = Signature(first.keyid, bytes([first.sig[0] ^ 1]) + first.sig[1:])
    return Envelope(envelope.payload, (wrong, *others))


def closed(trainer: Any, log: LocalLog) -> Envelope:
    final = trainer.final(3)
    log.append([final])
    return final


# --- one refusal of every code, each next to what is taken ---


def size(lab: Any, log: LocalLog, trainer: Any) -> str:
    return refused(log, sign(b"x" * 60_000, [lab.key("owner")]))


def statement(lab: Any, log: LocalLog, trainer: Any) -> str:
    return refused(log, sign(b"{}", [lab.key("owner")]))


def key(lab: Any, log: LocalLog, trainer: Any) -> str:
    codes: set[str] = set()
    for public in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32, b"short"):
        with pytest.raises(RefusedError) as refusal:
            log.append([], keys=[public])
        codes.add(refusal.value.check)
    assert codes == {"key"}
    return "key"


def key_unknown(lab: Any, log: LocalLog, trainer: Any) -> str:
    return refused(log, trainer.intent("nobody"))


def key_role(lab: Any, log: LocalLog, trainer: Any) -> str:
    introduce(lab, log, "lab", "log", "witness", "owner")
    for name in ("lab", "owner", "log", "witness", "lab worker-1-0"):
        assert refused(log, trainer.intent(name)) == "key-role"
    log.append([trainer.intent("acme")])
    assert refused(log, trainer.status("acme", log.origin, 0)) == "key-role"
    # A worker key that cannot sign is refused before a step is lost on it.
    other = lab.Lab(name="acme")
    assert refused(log, other.genesis) == "key-role"
    trainer.worker_names = lambda number: ["acme", "globex"]
    return refused(log, trainer.attempt(2))


def signers(lab: Any, log: LocalLog, trainer: Any) -> str:
    names = trainer.worker_names(1)
    for wrong in (names[:1], names[1:], [*names, "acme"], [names[0], "acme"], ["lab"]):
        assert refused(log, trainer.step(1, 4, wrong)) == "signers"
    assert refused(log, trainer.final(3, signer="owner")) == "signers"
    both = sign(trainer.intent("acme").payload, [lab.key(name) for name in AUDITORS])
    assert refused(log, both) == "signers"
    assert refused(log, trainer.segment(1, 1, 3, names[1])) == "signers"
    log.append([trainer.step(1, 4), trainer.segment(1, 1, 3, names[0])])
    foreign = sign(lab.Lab(name="other").genesis.payload, [lab.key("lab")])
    return refused(log, foreign)


def signature(lab: Any, log: LocalLog, trainer: Any) -> str:
    step = trainer.step(1, 4)
    for good in (step, trainer.intent("acme"), trainer.final(3), trainer.segment(1, 1, 3)):
        assert refused(log, altered(good)) == "signature"
    log.append([step])
    return refused(log, altered(lab.Lab(name="other").genesis))


def signer_differs(lab: Any, log: LocalLog, trainer: Any) -> str:
    intent = trainer.intent("acme")
    log.append([intent])
    return refused(log, sign(intent.payload, [lab.key("globex")]))


def contract_unknown(lab: Any, log: LocalLog, trainer: Any) -> str:
    other = lab.Lab(name="other", steps=7)
    assert refused(log, other.intent("acme", about="contract")) == "contract-unknown"
    assert refused(log, trainer.status("acme", log.origin, 0, contract=lab.digest("x"))) == (
        "contract-unknown"
    )
    return refused(log, other.genesis)


def run_unknown(lab: Any, log: LocalLog, trainer: Any) -> str:
    other = lab.Lab(name="other")
    assert refused(log, other.attempt(1)) == "run-unknown"
    assert refused(log, other.final(1)) == "run-unknown"
    return refused(log, other.intent("acme"))


def run_closed(lab: Any, log: LocalLog, trainer: Any) -> str:
    early = trainer.intent("acme")
    log.append([early])
    closed(trainer, log)
    late = (
        trainer.step(1, 4),
        trainer.attempt(2),
        trainer.segment(1, 1, 3),
        trainer.intent("globex"),
    )
    for envelope in late:
        assert refused(log, envelope) == "run-closed"
    # What was logged before keeps its index, and the contract is open to audits of other runs.
    assert log.append([early, trainer.steps[1][2]]) == [6, 4]
    log.append([trainer.intent("globex", about="contract")])
    return "run-closed"


def attempt_unknown(lab: Any, log: LocalLog, trainer: Any) -> str:
    trainer.attempt(2, after=(1, 3))
    assert refused(log, trainer.segment(2, 4, 4)) == "attempt-unknown"
    return refused(log, trainer.step(2, 4))


def attempt_number(lab: Any, log: LocalLog, trainer: Any) -> str:
    log.append([trainer.attempt(3, after=(1, 3))])
    return refused(log, trainer.attempt(2, after=(1, 2)))


def attempt_origin(lab: Any, log: LocalLog, trainer: Any) -> str:
    step = trainer.step(1, 4)
    assert refused(log, trainer.attempt(2, after=(1, 4))) == "attempt-origin"
    log.append([step])
    good = decode_statement(trainer.attempt(2, after=(1, 3)).payload)
    other = lab.Lab(name="other")
    log.append([other.genesis, other.attempt(1), other.step(1, 1)])
    for wrong in (
        replace(good, step=2),
        replace(good, step=4),
        replace(good, resumed_from=lab.record(trainer.attempts[1])),
        replace(good, resumed_from=lab.record(other.steps[1][1]), step=1),
    ):
        assert refused(log, lab.signed(wrong, "lab")) == "attempt-origin"
    log.append([lab.signed(good, "lab"), trainer.step(2, 4)])
    trainer.segment(1, 1, 2)
    # A segment is a place to go on from once it is logged, and only after its last row.
    assert refused(log, trainer.attempt(3, after=(1, 2), of="segment")) == "attempt-origin"
    log.append([trainer.segments[1][2]])
    from_segment = decode_statement(trainer.attempt(3, after=(1, 2), of="segment").payload)
    assert refused(log, lab.signed(replace(from_segment, step=1), "lab")) == "attempt-origin"
    other.segment(1, 1, 1)
    log.append([other.segments[1][1]])
    foreign = replace(from_segment, resumed_from=lab.record(other.segments[1][1]), step=1)
    assert refused(log, lab.signed(foreign, "lab")) == "attempt-origin"
    log.append([lab.signed(from_segment, "lab")])
    return "attempt-origin"


def step_run(lab: Any, log: LocalLog, trainer: Any) -> str:
    foreign = {"run": lab.digest("another run"), "prev": lab.digest("x")}
    step = trainer.step(1, 4, **foreign)
    segment = decode_statement(trainer.segment(1, 1, 3).payload)
    moved = replace(segment, run=lab.digest("x"), prev=lab.digest("x"))
    wrong = lab.signed(moved, trainer.worker_names(1)[0])
    assert refused(log, wrong) == "step-run"
    return refused(log, step)


def step_conflict(lab: Any, log: LocalLog, trainer: Any) -> str:
    assert refused(log, trainer.step(1, 3, loss="0x1.8000000000000p+0")) == "step-conflict"
    trainer.train(1, 1, 3)
    log.append([trainer.attempt(2, after=(1, 2)), trainer.step(2, 3)])
    return refused(log, trainer.step(2, 3, loss="0x1.8000000000000p+0"))


def step_order(lab: Any, log: LocalLog, trainer: Any) -> str:
    trainer.step(1, 4)
    skipped = trainer.step(1, 5)
    assert refused(log, skipped) == "step-order"
    log.append([trainer.attempt(2, after=(1, 2))])
    # Below its start an attempt has no steps.
    return refused(log, trainer.step(2, 2, prev=lab.digest("row 1")))


def step_prev(lab: Any, log: LocalLog, trainer: Any) -> str:
    assert refused(log, trainer.step(1, 4, prev=lab.digest("elsewhere"))) == "step-prev"
    log.append([trainer.attempt(2, after=(1, 2))])
    # The first step of a resumed attempt follows the row resumed from, not the newest one.
    wrong = trainer.rows[1][3].hash().hex()
    assert refused(log, trainer.step(2, 3, prev=wrong)) == "step-prev"
    log.append([trainer.step(2, 3), trainer.step(1, 4)])
    return "step-prev"


def segment_order(lab: Any, log: LocalLog, trainer: Any) -> str:
    assert refused(log, trainer.segment(1, 2, 3)) == "segment-order"
    log.append([trainer.segment(1, 1, 2), trainer.attempt(2, after=(1, 2))])
    # Below its start an attempt has no segments.
    assert refused(log, trainer.segment(2, 1, 3)) == "segment-order"
    trainer.train(1, 4, 6)
    # A gap.
    return refused(log, trainer.segment(1, 4, 6))


def segment_conflict(lab: Any, log: LocalLog, trainer: Any) -> str:
    # The last row of a segment is the one that the log has as a step.
    assert refused(log, trainer.segment(1, 1, 3, last_row=lab.digest("x"))) == "segment-conflict"
    first = trainer.segment(1, 1, 2)
    log.append([first])
    assert log.append([first]) == [log.size - 1]
    for other in ({"rows_root": lab.digest("other rows")}, {"state_root": lab.digest("other")}):
        assert refused(log, trainer.segment(1, 1, 2, **other)) == "segment-conflict"
    for overlapping in ((1, 3), (2, 3), (2, 2)):
        assert refused(log, trainer.segment(1, *overlapping)) == "segment-conflict"
    # And a step is the row that the log has as the last of a segment.
    trainer.train(1, 4, 5)
    log.append([trainer.segment(1, 3, 5), trainer.step(1, 4)])
    assert refused(log, trainer.step(1, 5, loss="0x1.8000000000000p+0")) == "segment-conflict"
    log.append([trainer.step(1, 5)])
    return "segment-conflict"


def segment_prev(lab: Any, log: LocalLog, trainer: Any) -> str:
    log.append([trainer.segment(1, 1, 2)])
    assert refused(log, trainer.segment(1, 3, 3, prev=lab.digest("x"))) == "segment-prev"
    log.append([trainer.attempt(2, after=(1, 3))])
    trainer.train(2, 4, 6)
    # The first segment of a resumed attempt follows the row resumed from: of a step,
    assert refused(log, trainer.segment(2, 4, 5, prev=lab.digest("x"))) == "segment-prev"
    log.append([trainer.segment(2, 4, 5), trainer.attempt(3, after=(2, 5), of="segment")])
    # or the last one of a segment; so do steps.
    assert refused(log, trainer.step(3, 6, prev=lab.digest("x"))) == "step-prev"
    trainer.step(3, 6)
    code = refused(log, trainer.segment(3, 6, 6, prev=lab.digest("x")))
    log.append([trainer.segment(3, 6, 6), trainer.step(3, 6)])
    return code


def final_early(lab: Any, log: LocalLog, trainer: Any) -> str:
    return refused(log, trainer.final(4))


def final_conflict(lab: Any, log: LocalLog, trainer: Any) -> str:
    final = closed(trainer, log)
    assert log.append([final]) == [log.size - 1]
    return refused(log, trainer.final(3, loss=1))


def intent_unknown(lab: Any, log: LocalLog, trainer: Any) -> str:
    intent = trainer.intent("acme")
    assert refused(log, trainer.nonce("acme", intent)) == "intent-unknown"
    log.append([intent])
    closed(trainer, log)
    assert refused(log, trainer.nonce("acme", trainer.genesis)) == "intent-unknown"
    return refused(log, trainer.nonce("acme", intent, signer="globex"))


def nonce_commitment(lab: Any, log: LocalLog, trainer: Any) -> str:
    intent = trainer.intent("acme")
    log.append([intent])
    closed(trainer, log)
    return refused(log, trainer.nonce("acme", intent, number=1))


def nonce_early(lab: Any, log: LocalLog, trainer: Any) -> str:
    intent = trainer.intent("acme")
    log.append([intent])
    code = refused(log, trainer.nonce("acme", intent))
    closed(trainer, log)
    log.append([trainer.nonce("acme", intent)])
    return code


def final_unknown(lab: Any, log: LocalLog, trainer: Any) -> str:
    unlogged = trainer.final(3)
    for early in (trainer.audit("acme", unlogged), trainer.property("acme", unlogged)):
        assert refused(log, early) == "final-unknown"
    final = closed(trainer, log)
    assert refused(log, trainer.audit("acme", final, run=lab.digest("x"))) == "final-unknown"
    log.append([trainer.audit("acme", final), trainer.property("acme", final)])
    return refused(log, trainer.audit("acme", trainer.genesis))


def status_head(lab: Any, log: LocalLog, trainer: Any) -> str:
    introduce(lab, log, "watch")
    assert refused(log, trainer.status("watch", "log.example/other", 1)) == "status-head"
    log.append([trainer.status("watch", log.origin, log.size)])
    return refused(log, trainer.status("watch", log.origin, log.size + 1))


def key_origin(lab: Any, log: LocalLog, trainer: Any) -> str:
    acme, owner = (lab.key(name).public.hex() for name in ("acme", "acme-owner"))
    revoked = KeyEvent("revoke", acme, Role.AUDITOR, log.origin, 0, owner, None)
    elsewhere = replace(revoked, origin="log.example/other")
    code = refused(log, lab.signed(elsewhere, "acme-owner"))
    log.append([lab.signed(revoked, "acme-owner")])
    return code


def key_ended(lab: Any, log: LocalLog, trainer: Any) -> str:
    acme, owner = (lab.key(name).public.hex() for name in ("acme", "acme-owner"))
    endorsed = KeyEvent("endorse", acme, Role.AUDITOR, log.origin, 0, owner, None)
    revoked = KeyEvent("revoke", acme, Role.AUDITOR, log.origin, log.size + 3, owner, None)
    log.append([lab.signed(endorsed, "acme-owner", "acme"), lab.signed(revoked, "acme-owner")])
    # The last index before the one that the owner named, and that one itself.
    log.append([trainer.intent("acme")])
    return refused(log, trainer.intent("acme", about="contract"))


SCENARIOS: dict[str, Callable[[Any, LocalLog, Any], str]] = {
    "size": size,
    "statement": statement,
    "key": key,
    "key-unknown": key_unknown,
    "key-role": key_role,
    "signers": signers,
    "signature": signature,
    "signer-differs": signer_differs,
    "contract-unknown": contract_unknown,
    "run-unknown": run_unknown,
    "run-closed": run_closed,
    "attempt-unknown": attempt_unknown,
    "attempt-number": attempt_number,
    "attempt-origin": attempt_origin,
    "step-run": step_run,
    "step-conflict": step_conflict,
    "step-order": step_order,
    "step-prev": step_prev,
    "segment-conflict": segment_conflict,
    "segment-order": segment_order,
    "segment-prev": segment_prev,
    "final-early": final_early,
    "final-conflict": final_conflict,
    "intent-unknown": intent_unknown,
    "nonce-commitment": nonce_commitment,
    "nonce-early": nonce_early,
    "final-unknown": final_unknown,
    "key-origin": key_origin,
    "key-ended": key_ended,
    "status-head": status_head,
}


def test_every_code_of_the_table_has_its_scenario():
    assert SCENARIOS.keys() == REFUSALS.keys()


@pytest.mark.parametrize("code", SCENARIOS)
def test_record_is_refused_with_its_code(code: str, lab: ModuleType, log: LocalLog, trained: Any):
    assert SCENARIOS[code](lab, log, trained) == code


def test_refused_record_takes_the_whole_batch_with_it(log: LocalLog, trained: Any, lab: ModuleType):
    good, bad = trained.step(1, 4), trained.step(1, 6)
    assert refused(log, good, bad) == "step-order"
    assert log.index_of(good.record_hash()) is None
    assert log.append([good]) == [6]


def test_batch_is_judged_in_its_own_order(log: LocalLog, lab: ModuleType):
    trainer = lab.Lab()
    opening, steps = trainer.opening(), trainer.train(1, 1, 3)
    resumed = [trainer.attempt(2, after=(1, 2)), trainer.step(2, 3)]
    assert refused(log, *steps) == "attempt-unknown"
    everything = [*opening, *steps, *resumed, trainer.final(3)]
    assert log.append([*everything, steps[0]], keys=[trainer.author]) == [*range(9), 3]


def test_signatures_are_checked_before_the_database_is_asked(
    log: LocalLog, trained: Any, monkeypatch: pytest.MonkeyPatch
):
    asked: list[bytes] = []
    monkeypatch.setattr(
        "attest.log.sqlite_store.SqliteStore.index_of", lambda _, record: asked.append(record)
    )
    assert refused(log, altered(trained.step(1, 4))) == "signature"
    assert asked == []


def test_row_hash_cut_from_the_payload_is_the_rows_own(lab: ModuleType):
    from attest.log.register import LoggedRecord

    trainer = lab.Lab()
    trainer.opening()
    for changes in ({}, {"bound": "0x1.0000000000000p-3"}, {"state_root": None}):
        trainer.step(1, 1, **changes)
        entry = LoggedRecord.read(trainer.steps[1][1])
        assert isinstance(entry.statement, Step)
        assert entry.row_hash() == entry.statement.row.hash().hex()


def test_key_is_remembered_with_its_first_record(log: LocalLog, trained: Any, lab: ModuleType):
    bare = LocalLog.append
    bare(log, [trained.intent("solo")], keys=[lab.key("solo").public])
    assert bare(log, [trained.intent("solo", about="contract")]) == [7]
    with pytest.raises(RefusedError) as refusal:
        bare(log, [trained.intent("acme")])
    assert refusal.value.check == "key-unknown"


def test_holders_promise_is_admitted_by_his_own_key(log: LocalLog, trained: Any, lab: ModuleType):
    introduce(lab, log, "vault")
    assert log.append([trained.held("vault")]) == [6]
    assert refused(log, trained.intent("vault")) == "key-role"


def test_second_final_is_kept_beside_the_first_as_evidence(
    log: LocalLog, trained: Any, run_directory: Any
):
    first, second = trained.final(3), trained.final(3, loss=1)
    log.append([first])
    for again in (second, trained.final(3, loss=2)):
        assert refused(log, again) == "final-conflict"
    (kept,) = (run_directory / "log" / "conflicts").iterdir()
    assert kept.name == f"{trained.run}.jsonl"
    assert kept.read_bytes().splitlines() == [first.to_bytes(), second.to_bytes()]


def test_statement_that_is_not_canonical_is_refused(log: LocalLog, trained: Any, lab: ModuleType):
    payload = encode_statement(decode_statement(trained.intent("acme").payload))
    assert refused(log, sign(payload + b" ", [lab.key("acme")])) == "statement"


def test_small_order_keys_cannot_enter_through_statements(lab: ModuleType, log: LocalLog):
    trainer = lab.Lab()
    genesis = decode_statement(trainer.genesis.payload)
    payload = encode_statement(genesis).replace(genesis.run_key.encode(), b"01" + b"00" * 31)
    log.append([trainer.published], keys=[trainer.author])
    assert refused(log, sign(payload, [PrivateKey(b"\x07" * 32)])) == "statement"
