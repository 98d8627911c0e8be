"""A small run directory made of the real records, without JAX: what `anh train` leaves behind."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from attest.assembly import assemble
from attest.contract import (
    Contract,
    Data,
    Init,
    Numerics,
    Optimizer,
    Programs,
    PropertyRule,
    Retention,
)
from attest.envelope import Envelope, sign
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, Role, VerifierKey
from attest.log.sequencer import LocalLog
from attest.merkle import leaf_hash, tree_root
from attest.numerics_class import CLASSES
from attest.policy import policy_text, self_policy
from attest.proof import encode_proof
from attest.statements import (
    Attempt,
    ContractStatement,
    ExportedFile,
    Final,
    Genesis,
    Intent,
    Line,
    Mesh,
    Row,
    Scalars,
    Statement,
    Step,
    encode_statement,
)
from attest.step_file import StepFile

OPERATOR = "lab"
ORIGIN = "lab/run"


def digest(name: str) -> str:
    """Return 64 hex digits that stand for the digest of something called `name`."""
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass
class MadeRun:
    """A run directory under construction; `rows` are those on the line."""

    root: Path
    steps: int
    seed: int = 0
    changed_from: int | None = None
    init_id: str = ""
    state_roots: dict[int, str] = field(default_factory=dict[int, str])
    rows: list[Row] = field(default_factory=list[Row])
    keys: dict[str, PrivateKey] = field(default_factory=dict[str, PrivateKey])
    envelopes: list[Envelope] = field(default_factory=list[Envelope])

    def contract(self) -> Contract:
        return Contract(
            version=1,
            steps=self.steps,
            batch_size=64,
            seed=self.seed,
            seed_rule="fixed",
            programs=Programs(
                self.init_id or digest("init"),
                *(digest(name) for name in ("gradient", "scalars", "update", "eval")),
            ),
            constants=digest("constants"),
            rules=digest("rules"),
            config=digest(f"config {self.seed}"),
            data=Data(digest("data"), 1437, "feistel-sha256/v1", None),
            init=Init("program"),
            optimizer=Optimizer("elementwise", "adamw"),
            numerics=Numerics.of(CLASSES["f32"]),
            properties=(PropertyRule("accuracy", digest("eval"), digest("holdout"), 9, 10, 0),),
            retention=Retention("30 days", (), "0", "7 days"),
        )

    @property
    def run_id(self) -> str:
        return self.statement("genesis").record_hash().hex()

    def statement(self, name: str) -> Envelope:
        return Envelope.from_bytes((self.root / "statements" / f"{name}.json").read_bytes())

    def write(self, name: str, said: Statement, key: str) -> Envelope:
        envelope = sign(encode_statement(said), [self.keys[key]])
        (self.root / "statements" / f"{name}.json").write_bytes(envelope.to_bytes())
        self.envelopes.append(envelope)
        return envelope

    def begin(self) -> None:
        for folder in ("statements", "steps", "keys", "checkpoints", "export", "programs"):
            (self.root / folder).mkdir(parents=True)
        contract = self.contract()
        (self.root / "contract.json").write_bytes(contract.to_bytes())
        (self.root / "config.yaml").write_text(f"training:\n  seed: {self.seed}\n")
        for name in ("author", "run", "log", "witness", "monitor", "auditor", "worker-1-0"):
            self.keys[name] = PrivateKey.generate()
            self.keys[name].save(self.root / "keys" / name, name)
        self.write("contract", ContractStatement(OPERATOR, contract), "author")
        genesis = Genesis(
            state_root=self.state_roots.get(0) or digest(f"state 0 {self.seed}"),
            contract=contract.id,
            plan=digest("plan"),
            run_key=self.keys["run"].public.hex(),
            trainer=OPERATOR,
            execution_class={"backend": "cpu", "threads": 2},
            environment={"python": "3.11.9", "jax": "0.10.2"},
            digest_policy="every 1",
            alg="blake3",
            init="exact",
            seed="fixed",
        )
        self.write("genesis", genesis, "run")
        (self.root / "policy.toml").write_text(self.policy_text())

    def policy_text(self) -> str:
        keys = self.keys
        return policy_text(
            self_policy(
                operator=OPERATOR,
                origin=ORIGIN,
                log=VerifierKey(ORIGIN, ALG_ED25519, keys["log"].public),
                witness=VerifierKey(f"{ORIGIN}/witness", ALG_COSIGNATURE, keys["witness"].public),
                keys={
                    Role.AUTHOR: keys["author"].public,
                    Role.RUN: keys["run"].public,
                    Role.AUDITOR: keys["auditor"].public,
                    Role.MONITOR: keys["monitor"].public,
                },
            )
        )

    def attempt(self, number: int, *, step: int, resumed_from: str = "") -> str:
        name = f"worker-{number}-0"
        if name not in self.keys:
            self.keys[name] = PrivateKey.generate()
            self.keys[name].save(self.root / "keys" / name, name)
        said = Attempt(
            resumed_from=resumed_from or self.run_id,
            run=self.run_id,
            number=number,
            step=step,
            worker_keys=(self.keys[name].public.hex(),),
            mesh=Mesh(1, 1, 1),
            processes=1,
            environment={"python": "3.11.9"},
            reason="start" if number == 1 else "resume",
        )
        return self.write(f"attempt-{number}", said, "run").record_hash().hex()

    def take(self, attempt: str, number: int, *, first: int, last: int) -> list[Envelope]:
        """Sign the rows first..last in one attempt, replacing what the line had from `first` on."""
        del self.rows[first - 1 :]
        signed: list[Envelope] = []
        with StepFile(self.root / "steps" / f"{number}-0.jsonl") as file:
            for step in range(first, last + 1):
                row = self.row(step)
                self.rows.append(row)
                said = encode_statement(Step(attempt=attempt, row=row))
                signed.append(sign(said, [self.keys[f"worker-{number}-0"]]))
                file.append(signed[-1])
        self.envelopes.extend(signed)
        with (self.root / "metrics.jsonl").open("a") as stream:
            for row in self.rows[first - 1 :]:
                stream.write(json.dumps(self.metrics(row.step)) + "\n")
        return signed

    def row(self, step: int) -> Row:
        told = self.changed_from is not None and step >= self.changed_from
        name = f"{step} {self.seed} {'changed' if told else ''}"
        return Row(
            run=self.run_id,
            step=step,
            prev=self.rows[-1].hash().hex() if self.rows else self.run_id,
            gradient_root=digest(f"gradient {name}"),
            state_root=self.state_roots.get(step) or digest(f"state {name}"),
            batch_root=digest(f"batch {step}"),
            scalars=Scalars((4.0 / step).hex(), 1, (64.0).hex()),
            loss=(147.0 / step**0.5).hex(),
            bound=(2.0**-12).hex(),
        )

    def metrics(self, step: int) -> dict[str, float]:
        row = {"step": step, "loss": 2.3 / step**0.5, "seconds": 0.012, "digest_seconds": 0.0011}
        if step % 5 == 0:
            row["holdout_accuracy"] = 1 - 0.9 / step**0.5
        return row

    def close(self) -> Envelope:
        hashes = [bytes.fromhex(self.run_id), *(row.hash() for row in self.rows)]
        last = self.rows[-1].state_root
        assert last is not None
        (self.root / "export" / "model.safetensors").write_bytes(b"weights")
        said = Final(
            state_root=last,
            files=(ExportedFile("model.safetensors", digest("weights")),),
            run=self.run_id,
            line=Line(len(hashes), tree_root([leaf_hash(row) for row in hashes]).hex()),
            steps=self.steps,
            attempts=len(list((self.root / "statements").glob("attempt-*.json"))),
            metrics={"loss": (0.25).hex()},
        )
        return self.write("final", said, "run")

    def intent(self) -> Envelope:
        """Sign an intent about the contract, which a log takes also after the final."""
        said = Intent("contract", self.contract().id, OPERATOR, digest("commitment"))
        return sign(encode_statement(said), [self.keys["auditor"]])

    def ship(self) -> None:
        """Log everything signed so far; for a closed run, assemble its proof too."""
        folder = self.root / "log"
        new = not folder.exists()
        with (
            LocalLog.create(folder, self.keys["log"], self.keys["witness"], ORIGIN)
            if new
            else LocalLog.open(folder)
        ) as log:
            named = ("author", "auditor", "monitor")
            log.append(self.envelopes, keys=[self.keys[name].public for name in named])
            checkpoint = log.checkpoint()
            if (self.root / "statements" / "final.json").exists():
                proof = assemble(log, self.run_id, checkpoint)
                (self.root / "run.proof").write_bytes(encode_proof(proof))


@pytest.fixture(scope="session")
def proven_once(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    """Make the run that `proven` copies: signing and syncing it takes most of a test's time."""
    made = make_run(tmp_path_factory.mktemp("proven") / "digits-3")
    made.ship()
    return made


@pytest.fixture
def proven(proven_once: MadeRun, tmp_path: Path) -> MadeRun:
    """Return a closed run of 12 steps whose log and proof are there."""
    root = tmp_path / "digits-3"
    shutil.copytree(proven_once.root, root)
    return dataclasses.replace(
        proven_once,
        root=root,
        rows=[*proven_once.rows],
        keys={**proven_once.keys},
        envelopes=[*proven_once.envelopes],
    )


@pytest.fixture
def finished(tmp_path: Path) -> MadeRun:
    """Return a run of 12 steps in one attempt, closed but not yet in a log."""
    return make_run(tmp_path / "digits-1")


def make_run(root: Path, **changes: object) -> MadeRun:
    """Make a closed run of 12 steps in one attempt."""
    made = MadeRun(root, 12, **changes)  # type: ignore[arg-type]
    made.begin()
    made.take(made.attempt(1, step=0), 1, first=1, last=12)
    made.close()
    return made


@pytest.fixture
def maker(tmp_path: Path) -> Callable[..., MadeRun]:
    """Return a function that makes one more closed run under a name of its own."""
    return lambda name, **changes: make_run(tmp_path / name, **changes)


@pytest.fixture
def unfinished(tmp_path: Path) -> MadeRun:
    """Return a run that was stopped after step 9 of 12 and resumed once, from step 5 on."""
    made = MadeRun(tmp_path / "digits-2", 12)
    made.begin()
    made.take(made.attempt(1, step=0), 1, first=1, last=7)
    at_five = Envelope.from_bytes((made.root / "steps" / "1-0.jsonl").read_bytes().splitlines()[4])
    attempt = made.attempt(2, step=5, resumed_from=at_five.record_hash().hex())
    made.take(attempt, 2, first=6, last=9)
    return made


@pytest.fixture
def key_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Point the key home at an empty folder."""
    monkeypatch.setenv("ANH_HOME", str(tmp_path / "home"))
    yield tmp_path / "home" / "keys"
