"""A run made of generated rows, signed and logged like a real one: for timing what attests.

Nothing here is trained. Every record is admitted by the real rules, so contract, genesis, attempt,
rows, final, audit and property fit together as those of a run do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attest import merkle
from attest.contract import (
    Contract,
    Data,
    Holdout,
    Init,
    Numerics,
    Optimizer,
    Programs,
    PropertyRule,
    Retention,
)
from attest.envelope import Envelope, row_hash, sign
from attest.keys import PrivateKey, Role
from attest.level import Level
from attest.log.sequencer import LocalLog
from attest.monitor import status
from attest.numerics_class import CLASSES
from attest.policy import policy_text
from attest.sample import commitment, sample_steps
from attest.statements import (
    Attempt,
    Audit,
    ContractStatement,
    Counts,
    ExportedFile,
    Final,
    Genesis,
    Intent,
    Line,
    Mesh,
    Nonce,
    Property,
    Row,
    Scalars,
    Source,
    Statement,
    Step,
    Threshold,
    Worst,
    encode_statement,
)
from attest.trust import (
    KeyEntry,
    LogEntry,
    Policy,
    PropertyDemand,
    Requirement,
    WitnessEntry,
)

AUDITOR = "auditor.example"
MONITOR = "monitor.example"
_NONCE = hashlib.sha256(b"a nonce").digest()
_SAMPLES = 20
_ONE = "0x1.0000000000000p+0"


def digest(text: str) -> str:
    """Return 64 hex digits that stand for something named."""
    return hashlib.sha256(text.encode()).hexdigest()


def facts(step: int) -> dict[str, object]:
    """Return what a row says beside its place on the line."""
    return {
        "gradient_root": digest(f"gradient {step}"),
        "state_root": digest(f"state {step}"),
        "batch_root": digest(f"batch {step}"),
        "scalars": Scalars("0x1.8f5c28f5c28f6p-1", 1, "0x1.0000000000000p+7"),
        "loss": "0x1.2c3d70a3d70a4p+1",
        "bound": "0x1.a36e2eb1c432dp-14",
    }


@dataclass
class GeneratedRun:
    """Signs the records of one run of `steps` steps, in the order in which a log takes them."""

    steps: int
    keys: dict[str, PrivateKey] = field(
        default_factory=lambda: {
            name: PrivateKey.generate()
            for name in ("author", "run", "worker", "auditor", "monitor", "log", "witness")
        }
    )
    run: str = ""
    attempt: str = ""

    def opening(self) -> tuple[Envelope, Envelope, Envelope]:
        """Sign contract, genesis and the first attempt."""
        contract = _contract(self.steps)
        first = self._sign("author", ContractStatement("lab", contract))
        genesis = self._sign("run", _genesis(contract, self.keys["run"]))
        self.run = genesis.record_hash().hex()
        attempt = self._sign("run", _attempt(self.run, self.keys["worker"]))
        self.attempt = attempt.record_hash().hex()
        return first, genesis, attempt

    def rows(self) -> Iterator[Row]:
        """Yield the rows 1 to T, each naming the one before."""
        previous = self.run
        for step in range(1, self.steps + 1):
            row = Row(run=self.run, step=step, prev=previous, **facts(step))  # type: ignore[arg-type]
            yield row
            previous = row.hash().hex()

    def signed_steps(self) -> Iterator[Envelope]:
        """Sign the rows; the line's root is known after the last one."""
        line = merkle.Frontier()
        line.append(merkle.leaf_hash(bytes.fromhex(self.run)))
        for row in self.rows():
            line.append(merkle.leaf_hash(row_hash(row.to_bytes())))
            yield self._sign("worker", Step(self.attempt, row))
        self._line = Line(self.steps + 1, line.root().hex())

    def intent(self) -> Envelope:
        """Sign the auditor's commitment to a nonce, which comes before the final record."""
        envelope = self._sign("auditor", Intent("run", self.run, AUDITOR, commitment(_NONCE).hex()))
        self._intent = envelope.record_hash().hex()
        return envelope

    def final(self) -> Envelope:
        """Sign the final record."""
        envelope = self._sign("run", _final(self.run, self.steps, self._line))
        self._final = envelope.record_hash()
        return envelope

    def judged(self) -> tuple[Envelope, Envelope, Envelope]:
        """Sign the revealed nonce, the audit and the property claim."""
        source = Source(self._intent, self.keys["auditor"].keyid, _NONCE.hex())
        nonce = Nonce(self._intent, _NONCE.hex())
        statements = (nonce, self._audit(source), self._property())
        first, second, third = (self._sign("auditor", statement) for statement in statements)
        return first, second, third

    def status(self, log: LocalLog) -> Envelope:
        """Let the monitor walk the whole log and sign what it holds about the contract."""
        return status(log, _contract(self.steps).id, self.keys["monitor"], MONITOR)

    def _sign(self, who: str, statement: Statement) -> Envelope:
        return sign(encode_statement(statement), [self.keys[who]])

    def _audit(self, source: Source) -> Audit:
        nonces = {source.keyid: _NONCE}
        samples = min(_SAMPLES, self.steps)
        drawn = sample_steps(bytes.fromhex(self.run), self._final, nonces, self.steps, samples)
        count = len({*drawn, self.steps})
        return Audit(
            final=self._final.hex(),
            run=self.run,
            auditor=AUDITOR,
            sample="intents",
            sources=(source,),
            k=samples,
            steps=count,
            method="bounded",
            results_root=digest("results"),
            counts=Counts(count, 0, 0, 0),
            worst=Worst(_ONE, _ONE, _ONE, None, _ONE, _ONE),
            init="pass",
            export="pass",
            line="pass",
            walk="pass",
            drift="no null known",
            gradient_roots=digest("gradients"),
            environment={"class.backend": "cpu", "jax": "0.10.2", "python": "3.11.7"},
        )

    def _property(self) -> Property:
        return Property(
            state_root=digest("last state"),
            run=self.run,
            final=self._final.hex(),
            auditor=AUDITOR,
            name="accuracy",
            program=digest("evaluate"),
            data_root=digest("holdout"),
            correct=280,
            total=297,
            threshold=Threshold(9, 10),
            margin=3,
            verdict="met",
        )


def new_log(run: GeneratedRun, directory: Path) -> LocalLog:
    """Make the run's log with its keys in a new directory."""
    return LocalLog.create(directory, run.keys["log"], run.keys["witness"], "log.example/bench")


def reader_policy(run: GeneratedRun, log: LocalLog) -> str:
    """Return the policy file of a reader who is none of those that signed, and asks for samples."""
    keys = (
        KeyEntry(Role.AUTHOR, run.keys["author"].public, "lab"),
        KeyEntry(Role.RUN, run.keys["run"].public, "lab"),
        KeyEntry(Role.AUDITOR, run.keys["auditor"].public, AUDITOR),
        KeyEntry(Role.MONITOR, run.keys["monitor"].public, MONITOR),
    )
    return policy_text(
        Policy(
            log=LogEntry(log.origin, log.names.log, "log.example"),
            witnesses=(WitnessEntry(log.names.witness, "witness.example"),),
            quorum=1,
            keys=keys,
            require=Requirement(Level.SAMPLED, (PropertyDemand("accuracy", 1),)),
        )
    )


def _contract(steps: int) -> Contract:
    return Contract(
        version=1,
        steps=steps,
        batch_size=64,
        seed=0,
        seed_rule="fixed",
        programs=Programs(
            *(digest(n) for n in ("init", "gradient", "scalars", "update", "evaluate"))
        ),
        constants=digest("constants"),
        rules=digest("rules"),
        config=digest("config"),
        data=Data(digest("data"), 1500, "feistel-sha256/v1", Holdout(digest("holdout"), 297)),
        init=Init("program"),
        optimizer=Optimizer("elementwise", "adamw"),
        numerics=Numerics.of(CLASSES["f32"]),
        properties=(PropertyRule("accuracy", digest("evaluate"), digest("holdout"), 9, 10, 3),),
        retention=Retention("P90D", ("lab",), "0", "P7D"),
    )


def _genesis(contract: Contract, key: PrivateKey) -> Genesis:
    return Genesis(
        state_root=digest("state 0"),
        contract=contract.id,
        plan=digest("plan"),
        run_key=key.public.hex(),
        trainer="lab",
        execution_class={
            "backend": "cpu",
            "device": "x86_64",
            "isa": "avx2,fma",
            "threads": "2",
            "driver": "none",
            "jaxlib": "0.10.2",
            "autotune": digest("autotune"),
        },
        environment={"python": "3.11.7", "jax": "0.10.2", "jaxlib": "0.10.2", "numpy": "2.3.4"},
        digest_policy="every 1",
        alg="blake3",
        init="exact",
        seed="fixed",
    )


def _attempt(run: str, worker: PrivateKey) -> Attempt:
    return Attempt(
        resumed_from=run,
        run=run,
        number=1,
        step=0,
        worker_keys=(worker.public.hex(),),
        mesh=Mesh(1, 1, 1),
        processes=1,
        environment={"jax": "0.10.2", "devices": "1"},
        reason="start",
    )


def _final(run: str, steps: int, line: Line) -> Final:
    return Final(
        state_root=digest("last state"),
        files=(ExportedFile("model.safetensors", digest("weights")),),
        run=run,
        line=line,
        steps=steps,
        attempts=1,
        metrics={"holdoutCorrect": 280, "holdoutTotal": 297, "loss": "0x1.8000000000000p-3"},
    )
