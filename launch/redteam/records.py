"""Attacks on the records of a run: what is logged, what is left out, what is told twice."""

import dataclasses
import shutil
from abc import abstractmethod
from typing import Literal

from anh_jax import attested_run
from anh_jax.redteam.attack import Attack, Outcome, Trial
from anh_jax.redteam.bench import envelopes
from anh_jax.run_directory import RunDirectory
from anh_jax.training.seams import AttemptRequest
from attest.assembly import assemble
from attest.envelope import Envelope, sign
from attest.errors import AttestError
from attest.keys import PrivateKey
from attest.log.run_log import RunLog
from attest.memory import Memory
from attest.multiproof import nodes_from_paths
from attest.proof import RunProof, encode_proof
from attest.statements import Audit, Final, Genesis, Step, decode_statement, encode_statement
from attest.step_file import StepFile
from launch.logs import run_log
from launch.redteam.place import RecordPlace


class RecordAttack(Attack[RecordPlace]):
    """One attack on records, carried out once a round."""

    family = "records"

    def carry_out(self, place: RecordPlace, *, rounds: int) -> Outcome:
        """Attack a fresh copy of the run in each round."""
        return Outcome(tuple(self.attack(place) for _ in range(rounds)))

    @abstractmethod
    def attack(self, place: RecordPlace) -> Trial:
        """Attack once."""


Reason = Literal["start", "resume"]


def _refused(log: RunLog, envelope: Envelope, keys: list[bytes]) -> str:
    """Return why the log refuses a record; empty where it takes it."""
    try:
        log.append([envelope], keys=keys)
    except AttestError as error:
        return str(error)
    return ""


def _request(key: PrivateKey, *, step: int, resumed: str, reason: Reason) -> AttemptRequest:
    return AttemptRequest(
        rank=0,
        public_key_hex=key.public.hex(),
        resumed_record_hex=resumed or None,
        step=step,
        mesh={"data": 1, "fsdp": 1, "tensor": 1},
        processes=1,
        environment={"selfReplay": "not tried"},
        reason=reason,
    )


class LateAttempt(RecordAttack):
    """Knows the sample and trains a sampled step anew."""

    name = "late-attempt"
    what = "After the final record and the sample, a new attempt resumes before a sampled step."

    def attack(self, place: RecordPlace) -> Trial:
        """Sign and log the attempt with the run's own keys."""
        run = place.honest()
        final = run.statement("final")
        first = next(e for e in envelopes(run) if isinstance(decode_statement(e.payload), Step))
        run.statement_path("final").unlink()  # the signer would refuse; its owner need not ask
        key = PrivateKey.generate()
        record = first.record_hash().hex()
        request = _request(key, step=1, resumed=record, reason="resume")
        grant = attested_run.sign_attempt(run, [request])
        run.write_statement("final", final)
        with run_log(run) as log:
            why = _refused(log, run.statement(f"attempt-{grant.number}"), [])
        return Trial(bool(why), None, why or "the log took the attempt")


class SecondFinal(RecordAttack):
    """Closes the run twice, to have two samples to choose from."""

    name = "second-final"
    what = "A second final record, with other metrics, is logged for the same line."

    def attack(self, place: RecordPlace) -> Trial:
        """Sign another final with the run key and log it."""
        run = place.honest()
        told = decode_statement(run.statement("final").payload)
        assert isinstance(told, Final)
        other = dataclasses.replace(told, metrics={"holdoutCorrect": 1})
        with run_log(run) as log:
            why = _refused(log, sign(encode_statement(other), [run.key("run")]), [])
        return Trial(bool(why), None, why or "the log took the second final")


class ClonedTranscript(RecordAttack):
    """Signs a transcript again under a new genesis, for a new sample."""

    name = "cloned-transcript"
    what = "All rows are signed again under a new genesis in the same log; the reader sees both."

    def attack(self, place: RecordPlace) -> Trial:
        """Clone, audit the clone, and see whether the reader's coverage counts two tries."""
        run = place.honest()
        clone = _cloned(run, place)
        with run_log(run) as log:
            log.append(_signed(clone), keys=[])
        place.audit(run)
        place.watch(run)
        reading = place.read(run, place.prove(run))
        seen = reading.verdict is not None and reading.verdict.coverage.tries >= 2  # noqa: PLR2004
        return Trial(seen or not reading.accepted, None, reading.text)


def _cloned(run: RunDirectory, place: RecordPlace) -> RunDirectory:
    clone = RunDirectory.open(shutil.copytree(run.root, place.new_folder()))
    genesis = attested_run.genesis_of(run)
    for path in clone.statement_path("genesis").parent.glob("*.json"):
        if path.stem != "contract":
            path.unlink()
    for step_file in (clone.root / "steps").iterdir():
        step_file.unlink()
    again = dataclasses.replace(genesis, environment={**genesis.environment, "again": "1"})
    clone.write_statement("genesis", sign(encode_statement(again), [run.key("run")]))
    identity = attested_run.run_id(clone)
    key = PrivateKey.generate()
    request = _request(key, step=0, resumed="", reason="start")
    grant = attested_run.sign_attempt(clone, [request])
    previous = identity
    with StepFile(clone.step_file(attempt=1, rank=0)) as file:
        for envelope in envelopes(run):
            said = decode_statement(envelope.payload)
            if isinstance(said, Step):
                row = dataclasses.replace(said.row, run=identity, prev=previous)
                file.append(sign(encode_statement(Step(grant.record, row)), [key]))
                previous = row.hash().hex()
    attested_run.close(clone, {})
    return clone


def _signed(run: RunDirectory) -> list[Envelope]:
    """Return what a run of one attempt has signed, in the order in which a log takes it."""
    rank = {Genesis.KIND: 0, "attempt": 1, Step.KIND: 2, Final.KIND: 3}
    return sorted(envelopes(run), key=lambda e: rank[decode_statement(e.payload).KIND])


class OmittedReceipt(RecordAttack):
    """Shows everything but the receipt that refutes the run."""

    name = "omitted-receipt"
    what = "The proof leaves out the audit that refutes the run, and keeps the monitor's status."

    def attack(self, place: RecordPlace) -> Trial:
        """Let acme refute a cheated run, then assemble the proof without its receipt."""
        run = place.cheated()
        place.audit(run, samples=4)
        place.watch(run)
        place.prove(run)
        with run_log(run) as log:
            checkpoint = log.published()
            whole = assemble(log, attested_run.run_id(run), checkpoint)
            kept = tuple(r for r in whole.records if not isinstance(r.statement, Audit))
            size = log.size
            indices = [record.index for record in kept]
            sizes = set(whole.sizes)
            nodes = tuple(nodes_from_paths(size, indices, sizes, log.inclusion))
        hiding = RunProof(checkpoint, whole.status_checkpoint, kept, whole.sizes, nodes)
        reading = place.read(run, encode_proof(hiding))
        return Trial(not reading.accepted, None, reading.text)


class RefutedRun(RecordAttack):
    """Shows a run that an audit has refuted, as it is."""

    name = "refuted-run"
    what = "A run with a cheat at every step is shown together with the receipt that refutes it."

    def attack(self, place: RecordPlace) -> Trial:
        """Let acme refute a cheated run and show it."""
        run = place.cheated()
        place.audit(run, samples=4)
        place.watch(run)
        reading = place.read(run, place.prove(run))
        return Trial(not reading.accepted, None, reading.text)


class ReplayedRecords(RecordAttack):
    """Passes the rows of another run off as its own."""

    name = "replayed-records"
    what = "Rows that another run signed are logged for this one."

    def attack(self, place: RecordPlace) -> Trial:
        """Offer a row of the honest run, signed by its worker, to the log of the cheated one."""
        honest, cheated = place.honest(), place.cheated()
        row = next(e for e in envelopes(honest) if isinstance(decode_statement(e.payload), Step))
        with run_log(cheated) as log:
            why = _refused(log, row, [])
        return Trial(bool(why), None, why or "the log took another run's row")


class TwoHistories(RecordAttack):
    """Shows one reader another log than the next time."""

    name = "two-histories"
    what = "The log is forked; a reader who remembers one history is shown the other."

    def attack(self, place: RecordPlace) -> Trial:
        """Fork the log before acme's receipt and show both ends to one reader."""
        run = place.honest()
        fork = RunDirectory.open(shutil.copytree(run.root, place.new_folder()))
        memory = Memory(place.new_folder())
        for told in (run, fork):
            place.audit(told)
            place.watch(told)
        first = place.read(run, place.prove(run), memory=memory)
        second = place.read(fork, place.prove(fork), memory=memory)
        words = f"first: {first.text}; then: {second.text}"
        return Trial(first.accepted and not second.accepted, None, words)


ATTACKS = (
    LateAttempt(), SecondFinal(), ClonedTranscript(), OmittedReceipt(), RefutedRun(),
    ReplayedRecords(), TwoHistories(),
)  # fmt: skip
