"""A lab that trains: signs the records of runs, rows chained as a trainer chains them.

Loaded by file name from this folder's conftest, and by the processes that tests start.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from attest.contract import (
    Contract,
    Data,
    Init,
    Numerics,
    Optimizer,
    Programs,
    Retention,
)
from attest.envelope import Envelope, sign
from attest.keys import PrivateKey
from attest.numerics_class import CLASSES
from attest.sample import commitment
from attest.segment import RowMark, segment_of
from attest.statements import (
    Attempt,
    Audit,
    ContractStatement,
    Counts,
    Final,
    Genesis,
    Held,
    Intent,
    Line,
    LogHead,
    Mesh,
    Nonce,
    Property,
    Row,
    Scalars,
    Statement,
    Status,
    Step,
    Threshold,
    Worst,
    encode_statement,
)

ONE = "0x1.0000000000000p+0"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def key(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(name.encode()).digest())


def signed(statement: Statement, *signers: str) -> Envelope:
    return sign(encode_statement(statement), [key(name) for name in signers])


def record(envelope: Envelope) -> str:
    return envelope.record_hash().hex()


def contract(*, steps: int = 100, seed: int = 7) -> Contract:
    return Contract(
        version=1,
        steps=steps,
        batch_size=64,
        seed=seed,
        seed_rule="fixed",
        programs=Programs(*(digest(n) for n in ("init", "gradient", "scalars", "update", "eval"))),
        constants=digest("constants"),
        rules=digest("rules"),
        config=digest("config"),
        data=Data(digest("data"), 1500, "feistel-sha256/v1", None),
        init=Init("program"),
        optimizer=Optimizer("elementwise", "adamw"),
        numerics=Numerics.of(CLASSES["f32"]),
        properties=(),
        retention=Retention("P90D", (), "0", "P7D"),
    )


class Lab:
    """Sign the records of one run; nothing is logged here.

    Attempt n is signed for by the keys `worker-<n>-<rank>`. `rows[n]` maps its steps to rows.
    """

    def __init__(self, *, name: str = "lab", workers: int = 1, steps: int = 100) -> None:
        self.name = name
        self.workers = workers
        self.contract = contract(steps=steps)
        self.published = signed(ContractStatement("owner", self.contract), "owner")
        self.genesis = signed(self._genesis(), name)
        self.run = record(self.genesis)
        self.attempts: dict[int, Envelope] = {}
        self.steps: dict[int, dict[int, Envelope]] = {}
        self.rows: dict[int, dict[int, Row]] = {}
        self.segments: dict[int, dict[int, Envelope]] = {}

    @property
    def author(self) -> bytes:
        return key("owner").public

    def opening(self) -> list[Envelope]:
        """Return contract, genesis and first attempt."""
        return [self.published, self.genesis, self.attempt(1)]

    def worker_names(self, number: int) -> list[str]:
        return [f"{self.name} worker-{number}-{rank}" for rank in range(self.workers)]

    def attempt(
        self,
        number: int,
        *,
        after: tuple[int, int] | None = None,
        of: str = "step",
        segments: str = "",
    ) -> Envelope:
        """Sign attempt `number`; `after` is the attempt and step resumed from, else genesis.

        `of` says by which record, a step or the segment that ends there, and `segments` what the
        attempt's log holds if no steps, as in `every 4`.
        """
        records = self.steps if of == "step" else self.segments
        resumed = self.run if after is None else record(records[after[0]][after[1]])
        step = 0 if after is None else after[1]
        self.rows[number] = {} if after is None else {step: self.rows[after[0]][step]}
        self.steps[number] = {}
        self.segments[number] = {}
        statement = Attempt(
            resumed_from=resumed,
            run=self.run,
            number=number,
            step=step,
            worker_keys=tuple(key(name).public.hex() for name in self.worker_names(number)),
            mesh=Mesh(self.workers, 1, 1),
            processes=self.workers,
            environment={"jax": "0.10.2"} | ({"segments": segments} if segments else {}),
            reason="start" if number == 1 else "resume",
        )
        self.attempts[number] = signed(statement, self.name)
        return self.attempts[number]

    def row(self, number: int, step: int, **changes: Any) -> Row:
        before = self.rows[number].get(step - 1)
        prev = digest("no row") if before is None else before.hash().hex()
        fields: dict[str, Any] = {
            "run": self.run,
            "step": step,
            "prev": self.run if step == 1 else prev,
            "gradient_root": digest(f"gradient {step}"),
            "state_root": digest(f"state {step}"),
            "batch_root": digest(f"batch {step}"),
            "scalars": Scalars(ONE, 1, "0x1.0000000000000p+6"),
            "loss": ONE,
            "bound": None,
        }
        return Row(**(fields | changes))

    def step(self, number: int, step: int, signers: Sequence[str] = (), **changes: Any) -> Envelope:
        """Sign a step of an attempt, after the one before it."""
        row = self.row(number, step, **changes)
        statement = Step(record(self.attempts[number]), row)
        envelope = signed(statement, *(signers or self.worker_names(number)))
        self.rows[number][step] = row
        self.steps[number][step] = envelope
        return envelope

    def train(self, number: int, first: int, last: int) -> list[Envelope]:
        return [self.step(number, step) for step in range(first, last + 1)]

    def segment(
        self, number: int, first: int, last: int, *signers: str, **changes: Any
    ) -> Envelope:
        """Sign a segment of an attempt over rows that it has taken, or over rows nobody took."""
        rows = self.rows[number]
        told = [rows.get(step) or self.row(number, step) for step in range(first, last + 1)]
        marks = [
            RowMark(step, row.prev, row.hash().hex(), row.state_root)
            for step, row in zip(range(first, last + 1), told, strict=True)
        ]
        statement = segment_of(self.run, record(self.attempts[number]), marks)
        envelope = signed(
            replace(statement, **changes), *(signers or self.worker_names(number)[:1])
        )
        self.segments[number][last] = envelope
        return envelope

    def final(self, steps: int, *, signer: str = "", **metrics: int | str) -> Envelope:
        statement = Final(
            state_root=digest(f"state {steps}"),
            files=(),
            run=self.run,
            line=Line(steps + 1, digest("line")),
            steps=steps,
            attempts=max(len(self.attempts), 1),
            metrics=metrics,
        )
        return signed(statement, signer or self.name)

    def intent(
        self, auditor: str, *, about: str = "run", target: str = "", number: int = 0
    ) -> Envelope:
        named = {"run": self.run, "contract": self.contract.id}
        nonce = commitment(nonce_of(auditor, number)).hex()
        return signed(Intent(about, target or named[about], auditor, nonce), auditor)

    def nonce(
        self, auditor: str, intent: Envelope, *, number: int = 0, signer: str = ""
    ) -> Envelope:
        statement = Nonce(record(intent), nonce_of(auditor, number).hex())
        return signed(statement, signer or auditor)

    def audit(self, auditor: str, final: Envelope, *, run: str = "") -> Envelope:
        statement = Audit(
            final=record(final),
            run=run or self.run,
            auditor=auditor,
            sample="self",
            sources=(),
            k=1,
            steps=2,
            method="exact",
            results_root=digest("results"),
            counts=Counts(2, 0, 0, 0),
            worst=Worst(*[None] * 6),
            init="pass",
            export="pass",
            line="pass",
            walk="pass",
            drift="no null known",
            gradient_roots=digest("gradients"),
            environment={},
        )
        return signed(statement, auditor)

    def property(self, auditor: str, final: Envelope) -> Envelope:
        statement = Property(
            state_root=digest("state"),
            run=self.run,
            final=record(final),
            auditor=auditor,
            name="accuracy",
            program=digest("eval"),
            data_root=digest("holdout"),
            correct=9,
            total=10,
            threshold=Threshold(1, 2),
            margin=0,
            verdict="met",
        )
        return signed(statement, auditor)

    def status(self, monitor: str, origin: str, size: int, *, contract: str = "") -> Envelope:
        statement = Status(
            contract=contract or self.contract.id,
            monitor=monitor,
            log=LogHead(origin, size, digest("root")),
            runs=(),
            contract_intents=(),
            key_events=(),
        )
        return signed(statement, monitor)

    def held(self, holder: str) -> Envelope:
        return signed(Held("state", digest("state"), holder, "2030-01-01T00:00:00Z"), holder)

    def _genesis(self) -> Genesis:
        return Genesis(
            state_root=digest("state 0"),
            contract=self.contract.id,
            plan=digest("plan"),
            run_key=key(self.name).public.hex(),
            trainer=self.name,
            execution_class={"backend": "cpu"},
            environment={},
            digest_policy="every 1",
            alg="blake3",
            init="exact",
            seed="fixed",
        )


def nonce_of(auditor: str, number: int = 0) -> bytes:
    return hashlib.sha256(f"nonce {number} of {auditor}".encode()).digest()
