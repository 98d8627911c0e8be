"""A run from contract to run proof, told by hand: every record can be told wrong on purpose.

The methods of a story append one signed record each, with fields replaced as a test asks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import run_wording as wording
from run_cast import (
    NOW,
    OPERATORS,
    ORIGIN,
    ROLES,
    WEIGHTS,
    digest,
    key,
    nonce_of,
    own_policy,
    policy,
    vkey,
)
from run_log import MemoryLog
from run_wording import contract, segment

from attest.assembly import assemble
from attest.client import verify_run
from attest.envelope import Envelope
from attest.keys import Role
from attest.proof import RunProof, encode_proof
from attest.sample import commitment, sample_steps
from attest.statements import (
    Attempt,
    Audit,
    Conflict,
    ContractStatement,
    Final,
    Genesis,
    Intent,
    KeyEvent,
    LogHead,
    Nonce,
    Property,
    RunEntries,
    Source,
    Status,
    Step,
)
from attest.verdict import Verdict

# What tests reach through the `tale` fixture, beside this module's own names.
__all__ = [
    "NOW",
    "ORIGIN",
    "ROLES",
    "WEIGHTS",
    "Story",
    "contract",
    "digest",
    "honest",
    "key",
    "own_policy",
    "segment",
    "vkey",
]


class Story(MemoryLog):
    """Tell a run of so many steps, of which an audit draws k."""

    def __init__(self, *, steps: int = 1000, k: int = 20) -> None:
        super().__init__()
        self.steps = steps
        self.k = k

    def open(self, *, genesis: dict[str, Any] | None = None) -> None:
        """Log contract, genesis and the first attempt."""
        self.tell_contract()
        self.tell_genesis(**(genesis or {}))
        self.tell_attempt()

    def tell_contract(
        self, *, author: str = "owner", signer: str = "owner", **changes: Any
    ) -> None:
        self.contract = replace(wording.contract(self.steps), **changes)
        self.add("contract", ContractStatement(author, self.contract), signer)

    def tell_genesis(self, *, signer: str = "lab", name: str = "genesis", **changes: Any) -> None:
        genesis = wording.genesis(self.contract.id)
        self.add(name, replace(genesis, **changes), signer)

    @property
    def run(self) -> str:
        return self.records["genesis"]

    def tell_attempt(self, *, signer: str = "lab", number: int = 1, **changes: Any) -> None:
        attempt = wording.attempt(self.run, number)
        self.add(f"attempt-{number}", replace(attempt, **changes), signer)

    def tell_step(
        self, step: int, *, attempt: int = 1, signers: Sequence[str] = (), **changes: Any
    ) -> str:
        row = wording.row(self.run, step)
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
        final = wording.final(self.run, self.steps, attempts)
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
        told = (Source(self.records[f"intent {n}"], key(n).keyid, nonce_of(n).hex()) for n in names)
        sources_ = sorted(told, key=lambda source: source.keyid)
        audit = wording.audit(who, self.run, self.records["final"], sources_, k, count)
        self.add(f"{name} {who}", replace(audit, **changes), signer or who)

    def tell_property(
        self, who: str, *, signer: str = "", label: str = "property", **changes: Any
    ) -> None:
        claim = wording.claim(who, self.final, self.records["final"])
        self.add(f"{label} {who}", replace(claim, **changes), signer or who)

    def tell_conflict(self, first: Envelope, second: Envelope, *, signer: str = "court") -> None:
        low, high = sorted((first, second), key=lambda e: e.record_hash())
        self.add("conflict", Conflict(low, high), signer)

    def tell_key_event(
        self, action: str, who: str, index: int, *, successor: str = "", **changes: Any
    ) -> None:
        """Log what `<who>-owner` says of a key; a key that begins signs beside it."""
        event = KeyEvent(
            action,
            key(who).public.hex(),
            changes.pop("role", ROLES.get(who, Role.AUDITOR)),
            changes.pop("origin", ORIGIN),
            index,
            key(changes.pop("owner", f"{who}-owner")).public.hex(),
            key(successor).public.hex() if successor else None,
        )
        newcomer = successor or (who if action == "endorse" else "")
        signers = changes.pop("signers", None) or [f"{who}-owner", *filter(None, [newcomer])]
        self.add(f"{action} {who}", event, *signers)

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
            key_events=self._where(lambda s: isinstance(s, KeyEvent)),
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

    # --- proofs ---

    def proof(self, checkpoint: bytes | None = None, **options: Any) -> RunProof:
        return assemble(self, self.run, checkpoint or self.checkpoint(), **options)

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
