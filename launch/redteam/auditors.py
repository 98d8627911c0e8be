"""Attacks by auditors: who does not compute, and who is nobody else."""

import dataclasses

from anh_jax.redteam.attack import Trial, bounded
from attest.envelope import Envelope
from attest.keys import PrivateKey, Role
from attest.statements import Audit, Counts, Worst, decode_statement
from launch.auditing import Audited
from launch.auditor_name import AuditorName
from launch.driver import run_log
from launch.policy_draft import Draft, build
from launch.redteam.place import AUDITOR, RecordPlace
from launch.redteam.records import RecordAttack


def _without_work(done: Audited) -> Audit:
    """Return the receipt of somebody who says that all is well and computes nothing."""
    total = sum(dataclasses.astuple(done.receipt.counts))
    return dataclasses.replace(
        done.receipt,
        counts=Counts(total, 0, 0, 0),
        results_root="00" * 32,
        gradient_roots="00" * 32,
        worst=Worst(*[(0.5).hex()] * len(dataclasses.fields(Worst))),
        walk="pass",
        init="pass",
        line="pass",
        export="pass",
    )


class LazyAuditor(RecordAttack):
    """Signs that every sampled step passed, and computes none."""

    name, family = "lazy-auditor", "auditors"
    what = "Receipts without work are given for a canary: a run with a planted fault in the sample."

    def attack(self, place: RecordPlace) -> Trial:
        """Compare the lazy receipt of a canary with what its maker knows of the planted fault."""
        done = place.audit(place.cheated(), samples=4)
        lazy = _without_work(done)
        planted = done.receipt.counts.refuted > 0
        caught = planted and lazy.counts.refuted == 0
        words = f"the canary has {done.receipt.counts.refuted} bad steps in the sample, it says 0"
        return Trial(caught, None, words)


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
        """Copy a receipt, and compare what it commits to with who has computed it again."""
        done = place.audit(place.honest(), samples=4).receipt
        again = place.audit(place.honest(), samples=4).receipt
        copy = dataclasses.replace(done, auditor="copier")
        # Who computes draws salts of his own: honest receipts never commit to the same bytes.
        caught = copy.gradient_roots == done.gradient_roots != again.gradient_roots
        return Trial(caught, None, "two receipts that commit to the same salted roots are a copy")


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
