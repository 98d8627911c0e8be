"""The envelopes that lead from a run's id to one signed row, as refutations hold them.

Nobody need be believed: the run's id is the hash of genesis, genesis names the contract and the run
key, the run key signed the attempt, the attempt names the worker keys, and these signed the row.
"""

from dataclasses import dataclass
from typing import TypeVar

from attest.canonical import JSON, encode
from attest.contract import Contract
from attest.envelope import Envelope, keyid, verify_signatures
from attest.errors import FormatError
from attest.file_fields import hold, json_of, read_envelope
from attest.statements import Attempt, Genesis, Row, Step, decode_statement

_Kind = TypeVar("_Kind", Genesis, Attempt, Step)
STEP_FIELDS = frozenset(("attempt", "contract", "genesis", "row"))
GENESIS_FIELDS = frozenset(("contract", "genesis"))


@dataclass(frozen=True, slots=True)
class SignedGenesis:
    """A run's contract and what its run key signed about its start."""

    contract: Contract
    genesis: Envelope

    def fields(self) -> dict[str, JSON]:
        """Return the fields of a file that hold this."""
        return {
            "contract": json_of(self.contract.to_bytes()),
            "genesis": json_of(self.genesis.to_bytes()),
        }

    @classmethod
    def from_fields(cls, value: dict[str, JSON]) -> "SignedGenesis":
        """Read the fields without judging them; FormatError for others."""
        contract = Contract.from_bytes(encode(value["contract"]))
        return cls(contract, read_envelope(value["genesis"]))


@dataclass(frozen=True, slots=True)
class SignedStep:
    """A run's contract and the envelopes that lead from its genesis to one row."""

    contract: Contract
    genesis: Envelope
    attempt: Envelope
    row: Envelope

    def fields(self) -> dict[str, JSON]:
        """Return the fields of a file that hold this."""
        return {
            **SignedGenesis(self.contract, self.genesis).fields(),
            "attempt": json_of(self.attempt.to_bytes()),
            "row": json_of(self.row.to_bytes()),
        }

    @classmethod
    def from_fields(cls, value: dict[str, JSON]) -> "SignedStep":
        """Read the fields without judging them; FormatError for others."""
        start = SignedGenesis.from_fields(value)
        attempt, row = read_envelope(value["attempt"]), read_envelope(value["row"])
        return cls(start.contract, start.genesis, attempt, row)


@dataclass(frozen=True, slots=True)
class AccusedStep:
    """Whom a verified file is about: the run's id, its genesis and the row of the step."""

    run: str
    genesis: Genesis
    row: Row


def verify_genesis(signed: SignedGenesis) -> Genesis:
    """Check that the run key that genesis names signed it, and that it names the contract.

    Raises:
        RefusedError: naming the check that failed.
        FormatError: the envelope holds another statement.
    """
    genesis = statement_of(signed.genesis, Genesis)
    run_key = bytes.fromhex(genesis.run_key)
    hold(genesis.contract == signed.contract.id, "contract", "genesis names another contract")
    verify_signatures(signed.genesis, {keyid(run_key): run_key})
    return genesis


def verify_step(signed: SignedStep) -> AccusedStep:
    """Check that all workers of an attempt of the run signed the row.

    Raises:
        RefusedError: naming the check that failed.
        FormatError: an envelope holds another statement than its place needs.
    """
    genesis = verify_genesis(SignedGenesis(signed.contract, signed.genesis))
    run, run_key = signed.genesis.record_hash().hex(), bytes.fromhex(genesis.run_key)
    attempt = statement_of(signed.attempt, Attempt)
    hold(attempt.run == run, "attempt", "belongs to another run")
    verify_signatures(signed.attempt, {keyid(run_key): run_key})
    step = statement_of(signed.row, Step)
    hold(step.row.run == run, "row", "belongs to another run")
    hold(step.attempt == signed.attempt.record_hash().hex(), "row", "is of another attempt")
    _check_workers(signed.row, attempt)
    return AccusedStep(run, genesis, step.row)


def statement_of(envelope: Envelope, kind: type[_Kind]) -> _Kind:
    """Return the statement that an envelope holds; FormatError where it is of another kind."""
    statement = decode_statement(envelope.payload)
    if not isinstance(statement, kind):
        raise FormatError(
            f"refutation: holds a {statement.KIND} where another statement belongs", code="kind"
        )
    return statement


def _check_workers(row: Envelope, attempt: Attempt) -> None:
    """Refuse a row that a worker did not sign: where hosts differ, the run stops and says none."""
    known = {keyid(bytes.fromhex(key)): bytes.fromhex(key) for key in attempt.worker_keys}
    signers = {signature.keyid for signature in row.signatures}
    hold(signers == known.keys(), "row", "is not signed by exactly the attempt's workers")
    verify_signatures(row, known)
