"""A run from contract to run proof, told by hand: every record can be told wrong on purpose.

A story is a log in memory. Its methods append one signed record each, with fields replaced as a
test asks, and `assemble` reads it like any log. Loaded by file name from the folders' conftest.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from attest.assembly import assemble
from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.client import verify_run
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
from attest.cosignature import cosign
from attest.envelope import Envelope, sign
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, Role, VerifierKey
from attest.level import Level
from attest.merkle import inclusion_ranges, leaf_hash, node_hash, subtree_consistency_ranges
from attest.multiproof import nodes_from_paths
from attest.note import Note
from attest.proof import ProofRecord, RunProof, encode_proof
from attest.sample import commitment, sample_steps
from attest.statements import (
    Attempt,
    Audit,
    Conflict,
    ContractStatement,
    Counts,
    ExportedFile,
    Final,
    Genesis,
    Intent,
    Line,
    LogHead,
    Mesh,
    Nonce,
    Property,
    Row,
    RunEntries,
    Scalars,
    Segment,
    Source,
    Statement,
    Status,
    Step,
    Threshold,
    Worst,
    encode_statement,
)
from attest.trust import (
    KeyEntry,
    LogEntry,
    NumericsDemand,
    Policy,
    PropertyDemand,
    Requirement,
    WitnessEntry,
)
from attest.verdict import Verdict

ORIGIN = "log.example/runs"
NOW = 1_790_000_000
WEIGHTS = b"the exported weights"
ROLES = {
    "owner": Role.AUTHOR,
    "lab": Role.RUN,
    "acme": Role.AUDITOR,
    "globex": Role.AUDITOR,
    "lab-audit": Role.AUDITOR,
    "watch": Role.MONITOR,
    "court": Role.REPORTER,
}
OPERATORS = {"lab-audit": "lab"}


def digest(text: str) -> str:
    """Return 64 hex digits that stand for something named."""
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def key(name: str) -> PrivateKey:
    """Return the key of a name, the same in every run of the tests."""
    return PrivateKey(hashlib.sha256(name.encode()).digest())


def nonce_of(name: str) -> bytes:
    return hashlib.sha256(f"nonce of {name}".encode()).digest()


def contract(steps: int) -> Contract:
    return Contract(
        version=1,
        steps=steps,
        batch_size=64,
        seed=7,
        seed_rule="fixed",
        programs=Programs(*(digest(n) for n in ("init", "gradient", "scalars", "update", "eval"))),
        constants=digest("constants"),
        rules=digest("rules"),
        config=digest("config"),
        data=Data(digest("data"), 1500, "feistel-sha256/v1", Holdout(digest("holdout"), 297)),
        init=Init("program"),
        optimizer=Optimizer("elementwise", "adamw"),
        numerics=Numerics(
            class_="f32",
            unit_roundoff="0x1.0000000000000p-24",
            c="0x1.0000000000000p+2",
            c_row="0x1.4000000000000p+3",
            cap="0x1.a36e2eb1c432dp-14",
            a2="0x1.0624dd2f1a9fcp-10",
            a2_cold="0x1.999999999999ap-4",
        ),
        properties=(PropertyRule("accuracy", digest("eval"), digest("holdout"), 9, 10, 3),),
        retention=Retention("P90D", ("lab",), "0", "P7D"),
    )


def segment(run: str, attempt: str, first: int, last: int) -> Segment:
    return Segment(
        state_root=digest(f"state {last}"),
        run=run,
        attempt=attempt,
        first=first,
        last=last,
        rows_root=digest(f"rows {first} to {last}"),
        seen=None,
    )


class Story:
    """Tell a run; `records` maps what was told to its record hash, `at` to its index."""

    def __init__(self, *, steps: int = 1000, k: int = 20) -> None:
        self.steps = steps
        self.k = k
        self.leaves: list[bytes] = []
        self.leaf_hashes: list[bytes] = []
        self.statements: dict[int, Statement] = {}
        self.indices: dict[bytes, int] = {}
        self.records: dict[str, str] = {}
        self.at: dict[str, int] = {}
        self._ranges: dict[tuple[int, int], bytes] = {}

    # --- the log ---

    def entry(self, index: int) -> Envelope:
        return Envelope.from_bytes(self.leaves[index])

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        return (
            _FILLER if leaf is FILLER else Envelope.from_bytes(leaf)
            for leaf in self.leaves[start:stop]
        )

    def index_of(self, record_hash: bytes) -> int | None:
        return self.indices.get(record_hash)

    def inclusion(self, index: int, size: int) -> Sequence[bytes]:
        return [self._root(r.start, r.end) for r in inclusion_ranges(index, size)]

    def consistency(self, old: int, new: int) -> Sequence[bytes]:
        return [self._root(r.start, r.end) for r in subtree_consistency_ranges(0, old, new)]

    def root(self, size: int | None = None) -> bytes:
        return self._root(0, len(self.leaves) if size is None else size)

    def _root(self, start: int, end: int) -> bytes:
        known = self._ranges.get((start, end))
        if known is None:
            if end - start == 1:
                return self.leaf_hashes[start]
            middle = start + (1 << ((end - start - 1).bit_length() - 1))
            known = node_hash(self._root(start, middle), self._root(middle, end))
            self._ranges[start, end] = known
        return known

    # --- records ---

    def add(self, name: str, statement: Statement, *signers: str) -> str:
        """Sign and append a statement; returns its record hash."""
        envelope = sign(encode_statement(statement), [key(s) for s in signers])
        return self.add_envelope(name, envelope, statement)

    def add_envelope(self, name: str, envelope: Envelope, statement: Statement) -> str:
        index = len(self.leaves)
        self.leaves.append(envelope.to_bytes())
        self.leaf_hashes.append(leaf_hash(self.leaves[-1]))
        self.statements[index] = statement
        self.indices.setdefault(envelope.record_hash(), index)
        self.records[name] = envelope.record_hash().hex()
        self.at[name] = index
        return self.records[name]

    def replace_entry(self, index: int, envelope: Envelope) -> None:
        """Put another envelope in an entry's place, as if it had always been there."""
        self.leaves[index] = envelope.to_bytes()
        self.leaf_hashes[index] = leaf_hash(self.leaves[index])
        self._ranges.clear()

    def drop_last(self) -> None:
        """Take the last entry back."""
        index = len(self.leaves) - 1
        self.leaves.pop()
        self.leaf_hashes.pop()
        self.statements.pop(index)
        self._ranges.clear()
        self.at = {name: at for name, at in self.at.items() if at != index}
        self.indices = {record: at for record, at in self.indices.items() if at != index}

    def fill(self, count: int) -> None:
        """Append entries that stand for steps nobody looks at here."""
        start = len(self.leaves)
        self.leaves += [FILLER] * count
        self.leaf_hashes += [
            hashlib.sha256(i.to_bytes(8, "big")).digest() for i in range(start, start + count)
        ]

    def open(self, *, genesis: dict[str, Any] | None = None) -> None:
        """Log contract, genesis and the first attempt."""
        self.tell_contract()
        self.tell_genesis(**(genesis or {}))
        self.tell_attempt()

    def tell_contract(
        self, *, author: str = "owner", signer: str = "owner", **changes: Any
    ) -> None:
        self.contract = replace(contract(self.steps), **changes)
        self.add("contract", ContractStatement(author, self.contract), signer)

    def tell_genesis(self, *, signer: str = "lab", name: str = "genesis", **changes: Any) -> None:
        genesis = Genesis(
            state_root=digest("state 0"),
            contract=self.contract.id,
            plan=digest("plan"),
            run_key=key("lab").public.hex(),
            trainer="lab",
            execution_class={
                "backend": "cpu",
                "device": "x86_64",
                "isa": "avx2,fma",
                "threads": 8,
                "driver": "none",
                "jaxlib": "0.10.2",
                "autotune": digest("autotune"),
            },
            environment={
                "python": "3.11.7",
                "jax": "0.10.2",
                "jaxlib": "0.10.2",
                "flax": "0.12.8",
                "numpy": "2.3.4",
                "xla_flags": "--xla_cpu_max_isa=AVX2",
                "host": "Linux x86_64",
                "libraries": digest("libraries"),
            },
            digest_policy="every 1",
            alg="blake3",
            init="exact",
            seed="fixed",
        )
        self.add(name, replace(genesis, **changes), signer)

    @property
    def run(self) -> str:
        return self.records["genesis"]

    def tell_attempt(self, *, signer: str = "lab", number: int = 1, **changes: Any) -> None:
        attempt = Attempt(
            resumed_from=self.run,
            run=self.run,
            number=number,
            step=0,
            worker_keys=(key(f"worker-{number}").public.hex(),),
            mesh=Mesh(1, 1, 1),
            processes=1,
            environment={"hostname": "node-7", "jax": "0.10.2", "devices": "1"},
            reason="start" if number == 1 else "resume",
        )
        self.add(f"attempt-{number}", replace(attempt, **changes), signer)

    def tell_step(
        self, step: int, *, attempt: int = 1, signers: Sequence[str] = (), **changes: Any
    ) -> str:
        row = Row(
            run=self.run,
            step=step,
            prev=self.run if step == 1 else digest(f"row {step - 1}"),
            gradient_root=digest(f"gradient {step}"),
            state_root=digest(f"state {step}"),
            batch_root=digest(f"batch {step}"),
            scalars=Scalars("0x1.0000000000000p+0", 1, "0x1.0000000000000p+6"),
            loss="0x1.0000000000000p-1",
            bound=None,
        )
        self.row = replace(row, **changes)
        statement = Step(self.records[f"attempt-{attempt}"], self.row)
        return self.add(f"step-{step}", statement, *(signers or (f"worker-{attempt}",)))

    def tell_intent(
        self,
        who: str,
        *,
        about: str = "run",
        name: str = "intent",
        signer: str = "",
        **changes: Any,
    ) -> None:
        intent = Intent(
            about=about,
            target=self.run if about == "run" else self.contract.id,
            auditor=OPERATORS.get(who, who),
            commitment=commitment(nonce_of(who)).hex(),
        )
        self.add(f"{name} {who}", replace(intent, **changes), signer or who)

    def tell_final(self, *, signer: str = "lab", name: str = "final", **changes: Any) -> None:
        attempts = sum(
            isinstance(s, Attempt) and s.run == self.run for s in self.statements.values()
        )
        final = Final(
            state_root=digest("last state"),
            files=(ExportedFile("model.safetensors", hashlib.sha256(WEIGHTS).hexdigest()),),
            run=self.run,
            line=Line(self.steps + 1, digest("line")),
            steps=self.steps,
            attempts=attempts,
            metrics={"accuracy": "0x1.e000000000000p-1", "loss": "0x1.8000000000000p-3"},
        )
        self.final = replace(final, **changes)
        self.add(name, self.final, signer)

    def tell_nonce(self, who: str, **changes: Any) -> None:
        nonce = Nonce(self.records[f"intent {who}"], nonce_of(who).hex())
        self.add(f"nonce {who}", replace(nonce, **changes), who)

    def tell_audit(
        self,
        who: str,
        *,
        sources: Iterable[str] | None = None,
        signer: str = "",
        name: str = "audit",
        **changes: Any,
    ) -> None:
        names = (who,) if sources is None else tuple(sources)
        nonces = {key(n).keyid: nonce_of(n) for n in names}
        k = changes.get("k", self.k)
        record = bytes.fromhex(self.records["final"])
        drawn = set(sample_steps(bytes.fromhex(self.run), record, nonces, self.steps, k))
        count = len(drawn | {self.steps})
        audit = Audit(
            final=self.records["final"],
            run=self.run,
            auditor=OPERATORS.get(who, who),
            sample="intents" if names else "self",
            sources=tuple(
                sorted(
                    (
                        Source(self.records[f"intent {n}"], key(n).keyid, nonce_of(n).hex())
                        for n in names
                    ),
                    key=lambda s: s.keyid,
                )
            ),
            k=k,
            steps=count,
            method="exact",
            results_root=digest("results"),
            counts=Counts(count, 0, 0, 0),
            worst=Worst(
                "0x1.0000000000000p-2",
                "0x1.8000000000000p-2",
                "0x1.0000000000000p-4",
                "0x1.0000000000000p-3",
            ),
            init="pass",
            export="pass",
            line="pass",
            drift="no null known",
            gradient_roots=digest("gradients"),
            environment={
                "backend": "gpu",
                "device": "NVIDIA H100",
                "jax": "0.12.0.1",
                "cuda": "13.0",
                "driver": "580.65",
                "python": "3.12.3",
            },
        )
        self.add(f"{name} {who}", replace(audit, **changes), signer or who)

    def tell_property(
        self, who: str, *, signer: str = "", label: str = "property", **changes: Any
    ) -> None:
        claim = Property(
            state_root=self.final.state_root,
            run=self.run,
            final=self.records["final"],
            name="accuracy",
            program=digest("eval"),
            data_root=digest("holdout"),
            correct=280,
            total=297,
            threshold=Threshold(9, 10),
            margin=3,
            verdict="met",
        )
        self.add(f"{label} {who}", replace(claim, **changes), signer or who)

    def tell_conflict(self, first: Envelope, second: Envelope, *, signer: str = "court") -> None:
        low, high = sorted((first, second), key=lambda e: e.record_hash())
        self.add("conflict", Conflict(low, high), signer)

    def tell_status(self, *, who: str = "watch", signer: str = "", **changes: Any) -> None:
        size = len(self.leaves)
        status = Status(
            contract=self.contract.id,
            monitor=who,
            log=LogHead(ORIGIN, size, self.root().hex()),
            runs=tuple(self._runs()),
            contract_intents=self._where(
                lambda s: isinstance(s, Intent) and s.target == self.contract.id
            ),
            key_events=(),
        )
        self.add("status", replace(status, **changes), signer or who)

    def _runs(self) -> Iterable[RunEntries]:
        names = {index: record for record, index in self.indices.items()}
        for index, statement in self.statements.items():
            if isinstance(statement, Genesis):
                yield self._run_entries(index, names[index].hex())

    def _run_entries(self, genesis: int, run: str) -> RunEntries:
        def listed(kind: type) -> tuple[int, ...]:
            return self._where(lambda s: isinstance(s, kind) and s.run == run)

        return RunEntries(
            run=run,
            genesis=genesis,
            attempts=listed(Attempt),
            finals=listed(Final),
            intents=self._where(lambda s: isinstance(s, Intent) and s.target == run),
            audits=listed(Audit),
            properties=listed(Property),
            conflicts=self._where(
                lambda s: (
                    isinstance(s, Conflict)
                    and any(
                        run == e.record_hash().hex() or run.encode() in e.payload
                        for e in (s.first, s.second)
                    )
                )
            ),
        )

    def _where(self, wanted: Any) -> tuple[int, ...]:
        return tuple(index for index, s in self.statements.items() if wanted(s))

    # --- heads, policies, proofs ---

    def checkpoint(
        self,
        *,
        size: int | None = None,
        root: bytes | None = None,
        origin: str = ORIGIN,
        witnesses: Sequence[str] = ("wit-a", "wit-b"),
        time: int = NOW - 60,
    ) -> bytes:
        size = len(self.leaves) if size is None else size
        note = sign_checkpoint(Checkpoint(origin, size, root or self.root(size)), key("log"))
        for i, witness in enumerate(witnesses):
            note = note.signed_also(cosign(note.text, f"{witness}.example", key(witness), time + i))
        return note.to_bytes()

    def proof(self, checkpoint: bytes | None = None, **options: Any) -> RunProof:
        return assemble(self, self.run, checkpoint or self.checkpoint(), **options)

    def proof_of(
        self,
        indices: Iterable[int],
        *,
        sizes: Iterable[int] = (),
        checkpoint: bytes | None = None,
        status_checkpoint: bytes | None = None,
    ) -> RunProof:
        """Return the proof of just these entries, whether or not they make sense together."""
        checkpoint = checkpoint or self.checkpoint()
        size = Checkpoint.from_text(Note.from_bytes(checkpoint).text).size
        indices, sizes = sorted(set(indices)), sorted(set(sizes))
        return RunProof(
            checkpoint=checkpoint,
            status_checkpoint=status_checkpoint,
            records=tuple(ProofRecord.read(i, self.entry(i)) for i in indices),
            sizes=tuple(sizes),
            nodes=tuple(nodes_from_paths(size, indices, sizes, self.inclusion)),
        )

    def proof_but(self, *names: str, **options: Any) -> RunProof:
        """Return the run's proof without some of its records."""
        whole = self.proof()
        dropped = {self.at[name] for name in names}
        kept = [record.index for record in whole.records if record.index not in dropped]
        return self.proof_of(kept, **{"sizes": whole.sizes, **options})

    def proof_and(self, *names: str, **options: Any) -> RunProof:
        """Return the run's proof with other entries of the log beside its records."""
        whole = self.proof()
        indices = [record.index for record in whole.records] + [self.at[name] for name in names]
        return self.proof_of(indices, **{"sizes": whole.sizes, **options})

    def file(self, **options: Any) -> bytes:
        return encode_proof(self.proof(**options))

    def verify(self, proof: RunProof | None = None, **options: Any) -> Verdict:
        options.setdefault("now", NOW)
        policy_ = options.pop("policy", None) or policy()
        return verify_run(encode_proof(proof or self.proof()), policy_, **options)


_FILLER = sign(
    encode_statement(
        Step(
            digest("attempt"),
            Row(
                run=digest("run"),
                step=1,
                prev=digest("run"),
                gradient_root=digest("g"),
                state_root=digest("s"),
                batch_root=digest("b"),
                scalars=Scalars("0x1.0000000000000p+0", 1, "0x1.0000000000000p+6"),
                loss="0x1.0000000000000p-1",
                bound=None,
            ),
        )
    ),
    [key("worker-1")],
)
FILLER = _FILLER.to_bytes()


def honest(*, steps: int = 1000, k: int = 20, filler: int = 12) -> Story:
    """Tell a run with nothing wrong: sampled by acme, seen whole by the monitor watch."""
    story = Story(steps=steps, k=k)
    story.open()
    story.tell_intent("acme")
    story.fill(filler)
    story.tell_final()
    story.tell_audit("acme")
    story.tell_property("acme")
    story.tell_status()
    return story


def vkey(name: str, algorithm: int = ALG_ED25519) -> VerifierKey:
    label = ORIGIN if name == "log" else f"{name}.example"
    return VerifierKey(label, algorithm, key(name).public)


def policy(**changes: Any) -> Policy:
    """Return a foreign reader's policy; `without` drops keys by name."""
    dropped = changes.pop("without", ())
    base = Policy(
        log=LogEntry(ORIGIN, vkey("log"), "logco"),
        witnesses=tuple(
            WitnessEntry(vkey(name, ALG_COSIGNATURE), name) for name in ("wit-a", "wit-b")
        ),
        quorum=2,
        keys=tuple(
            KeyEntry(role, key(name).public, OPERATORS.get(name, name))
            for name, role in ROLES.items()
            if name not in dropped
        ),
        numerics=NumericsDemand(classes=("f32",), min_k=10, bad_fraction=0.01),
        require=Requirement(Level.SAMPLED, (PropertyDemand("accuracy", 1),)),
    )
    return replace(base, **changes)


def own_policy(**changes: Any) -> Policy:
    """Return the policy of a run about itself: everyone is the trainer."""
    base = policy()
    return replace(
        base,
        log=replace(base.log, operator="lab"),
        witnesses=tuple(replace(w, operator="lab") for w in base.witnesses),
        quorum=1,
        keys=tuple(replace(entry, operator="lab") for entry in base.keys),
        require=Requirement(),
        **changes,
    )


def note_of(checkpoint: bytes) -> Note:
    return Note.from_bytes(checkpoint)
