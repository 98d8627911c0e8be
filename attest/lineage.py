"""From contract to final record: what the run itself claims, checked against the policy."""

from dataclasses import dataclass
from typing import TypeVar, cast

from attest.canonical import hex_float, parse_hex_float
from attest.check import hold, refuse
from attest.contract import Contract, Numerics
from attest.keys import Role, keyid
from attest.proof import ProofRecord, RunProof
from attest.signers import check_operator, check_signed, covering_key, signed_in_role
from attest.statements import (
    Attempt,
    ContractStatement,
    Final,
    Genesis,
    Segment,
    Statement,
    Step,
)
from attest.trust import Policy

__all__ = ["MAX_LISTED_ATTEMPTS", "Lineage", "check_lineage"]

# With more attempts a proof lists none: their number is in the final record.
MAX_LISTED_ATTEMPTS = 8
_T = TypeVar("_T", bound=Statement)


@dataclass(frozen=True, slots=True)
class Lineage:
    """Hold the run's own records, checked; `trainer_named` says whether the policy names the key.

    `trainer` is the operator of the run key by the policy, or else by genesis alone.
    """

    contract: Contract
    contract_id: str
    contract_record: ProofRecord
    genesis: ProofRecord
    attempts: tuple[ProofRecord, ...]
    final_record: ProofRecord
    final: Final
    run_key: bytes
    trainer: str
    trainer_named: bool

    @property
    def author(self) -> str:
        """Return the operator who published the contract; the policy names the author's key."""
        return cast(ContractStatement, self.contract_record.statement).author

    @property
    def run(self) -> str:
        """Return the run id: the record hash of genesis."""
        return self.genesis.hash


def check_lineage(proof: RunProof, policy: Policy) -> Lineage:
    """Check contract, genesis, attempts and final record.

    Raises:
        RefusedError: naming the check that failed.
    """
    lineage = _root(proof, policy)
    _check_accepted(lineage, policy)
    _check_numerics(lineage.contract.numerics, policy)
    _check_final(lineage, policy)
    _check_attempts(lineage, proof, policy)
    return lineage


def _root(proof: RunProof, policy: Policy) -> Lineage:
    contract_record = _only(proof, ContractStatement)
    genesis = _only(proof, Genesis)
    finals = proof.of_kind(Final)
    hold(len(finals) <= 1, "one final", f"the proof holds {len(finals)} final records")
    author = signed_in_role(policy, contract_record, Role.AUTHOR)
    published = cast(ContractStatement, contract_record.statement)
    opening = cast(Genesis, genesis.statement)
    check_operator(contract_record, published.author, author)
    contract_id = published.subjects()[0].digest
    hold(
        opening.contract == contract_id,
        "contract",
        f"genesis names contract {opening.contract}, the proof holds {contract_id}",
    )
    hold(contract_record.index < genesis.index, "order", "genesis lies before its contract")
    run_key = bytes.fromhex(opening.run_key)
    check_signed(genesis, {keyid(run_key): run_key})
    named = bool(policy.of_role(Role.RUN))
    if named:
        entry = covering_key(policy, genesis, keyid(run_key), Role.RUN)
        check_operator(genesis, opening.trainer, entry)
    else:
        _check_foreign_to_policy(policy, genesis, run_key)
    final = _only(proof, Final)
    return Lineage(
        contract=published.contract,
        contract_id=contract_id,
        contract_record=contract_record,
        genesis=genesis,
        attempts=proof.of_kind(Attempt),
        final_record=final,
        final=cast(Final, final.statement),
        run_key=run_key,
        trainer=opening.trainer,
        trainer_named=named,
    )


def _check_accepted(lineage: Lineage, policy: Policy) -> None:
    for what, name, accepted in (
        ("contract", lineage.contract_id, policy.contracts),
        ("run", lineage.run, policy.runs),
    ):
        hold(
            not accepted or name in accepted, "accepted", f"the policy does not list {what} {name}"
        )


def _check_numerics(numerics: Numerics, policy: Policy) -> None:
    classes = policy.numerics.classes
    hold(
        not classes or numerics.class_ in classes,
        "numerics",
        f"the contract's class is {numerics.class_}, the policy takes {', '.join(classes)}",
    )
    values = {
        "unitRoundoff": numerics.unit_roundoff,
        "c": numerics.c,
        "cRow": numerics.c_row,
        "phi": numerics.phi,
        "phiSum": numerics.phi_sum,
        "cap": numerics.cap,
        "a2": numerics.a2,
        "a2Cold": numerics.a2_cold,
        "nullGradients": hex_float(float(len(numerics.null_gradients))),
    }
    for name, limit in policy.numerics.caps:
        written = values[name]
        # Null: the check does not apply, which no number bounds.
        value = float("inf") if written is None else parse_hex_float(written)
        hold(value <= limit, "numerics", f"the contract's {name} is {value:g}, above {limit:g}")


def _check_final(lineage: Lineage, policy: Policy) -> None:
    record, final = lineage.final_record, lineage.final
    _check_run_record(lineage, record, policy)
    hold(final.run == lineage.run, "final", f"the final record is of run {final.run}")
    hold(lineage.genesis.index < record.index, "order", "the final record lies before genesis")
    # A final statement whose line has not steps + 1 rows is none (`Final`): T fixes the count too.
    hold(
        final.steps == lineage.contract.steps,
        "final",
        f"the run has {final.steps} steps, its contract {lineage.contract.steps}",
    )


def _check_attempts(lineage: Lineage, proof: RunProof, policy: Policy) -> None:
    expected = lineage.final.attempts if lineage.final.attempts <= MAX_LISTED_ATTEMPTS else 0
    attempts = lineage.attempts
    hold(
        len(attempts) == expected,
        "attempts",
        f"the proof lists {len(attempts)} attempts, {expected} of {lineage.final.attempts} belong",
    )
    sources = {r.hash: r for r in proof.records if isinstance(r.statement, Step | Segment)}
    used: set[str] = set()
    previous = lineage.genesis.index
    for number, record in enumerate(attempts, start=1):
        attempt = cast(Attempt, record.statement)
        _check_run_record(lineage, record, policy)
        hold(attempt.run == lineage.run, "attempts", f"{record.where} is of run {attempt.run}")
        hold(attempt.number == number, "attempts", f"{record.where} is not attempt {number}")
        between = previous < record.index < lineage.final_record.index
        hold(between, "order", f"{record.where} lies before its predecessor or after the final")
        for worker in attempt.worker_keys:
            hold(worker != lineage.run_key.hex(), "one key, one role", f"{record.where}: run key")
            _check_foreign_to_policy(policy, record, bytes.fromhex(worker))
        if attempt.step:
            _check_resumption(lineage, record, sources.get(attempt.resumed_from))
            used.add(attempt.resumed_from)
        previous = record.index
    hold(used == sources.keys(), "relevance", "the proof holds a step no attempt resumes from")


def _check_resumption(lineage: Lineage, attempt: ProofRecord, source: ProofRecord | None) -> None:
    """Check the step or segment an attempt resumes from: of this run, an earlier attempt's."""
    if source is None:
        refuse("attempts", f"{attempt.where} resumes from a record that is not in the proof")
    claimed = cast(Attempt, attempt.statement)
    made_by = cast("Step | Segment", source.statement).attempt
    earlier = [r for r in lineage.attempts if r.hash == made_by and r.index < attempt.index]
    hold(earlier, "attempts", f"{source.where} is of no earlier attempt of this run")
    between = earlier[0].index < source.index < attempt.index
    hold(between, "order", f"{source.where} does not lie between its attempt and the next")
    workers = cast(Attempt, earlier[0].statement).worker_keys
    if isinstance(source.statement, Step):
        run, step = source.statement.row.run, source.statement.row.step
    else:
        # A segment speaks for all hosts under its attempt's first key alone.
        run, step = cast(Segment, source.statement).run, cast(Segment, source.statement).last
        workers = workers[:1]
    hold(run == lineage.run, "attempts", f"{source.where} is of run {run}")
    hold(
        step == claimed.step,
        "attempts",
        f"{attempt.where} starts at step {claimed.step}, not {step}",
    )
    hold(step <= lineage.contract.steps, "attempts", f"{source.where} lies past the last step")
    keys = [bytes.fromhex(worker) for worker in workers]
    check_signed(source, {keyid(key): key for key in keys})


def _check_run_record(lineage: Lineage, record: ProofRecord, policy: Policy) -> None:
    """Check that the run key alone signed, and may at this index."""
    check_signed(record, {keyid(lineage.run_key): lineage.run_key})
    if lineage.trainer_named:
        covering_key(policy, record, keyid(lineage.run_key), Role.RUN)


def _check_foreign_to_policy(policy: Policy, record: ProofRecord, public: bytes) -> None:
    hold(
        public not in policy.public_keys(),
        "one key, one role",
        f"{record.where} uses key {public.hex()}, which the policy names in another role",
    )


def _only(proof: RunProof, kind: type[_T]) -> ProofRecord:
    records = proof.of_kind(kind)
    hold(len(records) == 1, "relevance", f"the proof holds {len(records)} {kind.KIND} records")
    return records[0]
