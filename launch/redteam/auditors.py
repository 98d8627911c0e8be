"""Attacks by auditors: who does not compute, and who is nobody else."""

import dataclasses

from anh_jax.redteam.attack import Trial, bounded
from attest.canonical import hex_float
from attest.envelope import Envelope
from attest.keys import PrivateKey, Role
from attest.statements import Audit, Counts, Worst, decode_statement
from launch.auditing import Audited
from launch.auditor_name import AuditorName
from launch.canary_check import check
from launch.logs import run_log
from launch.policy_draft import Draft, build
from launch.redteam.place import AUDITOR, Canary, RecordPlace
from launch.redteam.records import RecordAttack


def _without_work(done: Audited) -> Audit:
    """Return the receipt of somebody who says that all is well and computes nothing."""
    total = sum(dataclasses.astuple(done.receipt.counts))
    return dataclasses.replace(
        done.receipt,
        steps=total,
        counts=Counts(total, 0, 0, 0),
        results_root="00" * 32,
        gradient_roots="00" * 32,
        # Where statistics were given, harmless ones.
        worst=Worst(*[v and hex_float(0.5) for v in dataclasses.astuple(done.receipt.worst)]),
        walk="pass",
        init="pass",
        line="pass",
        export="pass",
    )


class LazyAuditor(RecordAttack):
    """Signs that every sampled step passed, and computes none."""

    name, family = "lazy-auditor", "auditors"
    what = "Receipts without work are given for a canary: a run with secret faults in the sample."

    def attack(self, place: RecordPlace) -> Trial:
        """Sign without work that a canary is clean, and let its maker judge the receipt."""
        canary = place.canary()
        # The real audit, of another copy, only shows what a receipt looks like.
        done = place.audit(place.canary().run, samples=place.bench.steps)
        key = PrivateKey.load(place.auditor)
        _log(canary, AuditorName(key, AUDITOR, own=False), _without_work(done))
        (tried,) = check(canary.run.root, canary.answer, ())
        return Trial(tried.finding == "lazy", None, tried.words)


class ColludingAuditor(RecordAttack):
    """Runs the auditor that vouches for its own run."""

    name, family = "colluding-operator", "auditors"
    what = "The trainer's own operator signs a clean receipt of a cheated run."

    def attack(self, place: RecordPlace) -> Trial:
        """Sign without work under the trainer's operator, in a policy that names it so."""
        run = place.cheated()
        key = PrivateKey.generate()
        path = place.new_folder()
        key.save(path, "own")
        done = place.audit(place.cheated(), samples=4)
        who = AuditorName(key, done.trainer, own=False)
        receipt = dataclasses.replace(_without_work(done), auditor=done.trainer)
        with run_log(run) as log:
            log.append([_signed(who, receipt)], keys=[key.public])
        place.watch(run)
        proof = place.prove(run)
        policy = build(Draft(like=run.root / "policy.toml", keys=[
            (Role.AUDITOR, f"{path}={done.trainer}")], level="sampled"))  # fmt: skip
        reading = place.read_under(policy, proof)
        return Trial(not reading.accepted, None, reading.text)


class CopyingAuditors(RecordAttack):
    """Two auditors, one of whom copies the other's receipt."""

    name, family = "copied-receipt", "auditors"
    what = "A second auditor signs the first one's numbers; he cannot open its salted roots."

    def attack(self, place: RecordPlace) -> Trial:
        """Sign acme's receipt of a canary as another auditor, and let its maker judge both."""
        canary = place.canary()
        done = place.audit(canary.run, samples=place.bench.steps)
        copy = dataclasses.replace(done.receipt, auditor="copier")
        _log(canary, AuditorName(PrivateKey.generate(), "copier", own=False), copy)
        first, second = check(canary.run.root, canary.answer, ())
        caught = (first.finding, second.finding) == ("found", "copied")
        return Trial(caught, None, f"acme: {first.words}; copier: {second.words}")


def _log(canary: Canary, who: AuditorName, receipt: Audit) -> None:
    with run_log(canary.run) as log:
        log.append([_signed(who, receipt)], keys=[who.key.public])


def _signed(who: AuditorName, receipt: Audit) -> Envelope:
    envelope = who.sign(receipt)
    assert isinstance(decode_statement(envelope.payload), Audit)
    return envelope


class BribedAuditor(RecordAttack):
    """A foreign operator that the reader trusts signs a clean receipt of a cheated run."""

    name, family = "bribed-auditor", "auditors"
    what = "acme, whom the policy trusts, signs without work that a cheated run is clean."
    expected = bounded("trusted auditors can lie: canaries and a second operator are what is left")

    def attack(self, place: RecordPlace) -> Trial:
        """Log the bribed receipt with acme's own key and intent."""
        run = place.cheated()
        done = place.audit(place.cheated(), samples=4)
        key = PrivateKey.load(place.auditor)
        who = AuditorName(key, AUDITOR, own=False)
        with run_log(run) as log:
            log.append([_signed(who, _without_work(done))], keys=[key.public])
        place.watch(run)
        reading = place.read(run, place.prove(run))
        return Trial(not reading.accepted, None, reading.text)


ATTACKS = (LazyAuditor(), ColludingAuditor(), CopyingAuditors(), BribedAuditor())
