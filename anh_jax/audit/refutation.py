"""Makes a refutation file of a refuted operator, and judges one by running that operator."""

import dataclasses
from dataclasses import dataclass
from typing import cast

from anh_jax.audit.leaf import check_operator
from anh_jax.audit.operator import Leaf, excess_words
from anh_jax.audit.recording import FolderRecording, array_of
from anh_jax.bounds.rounding import Backend, Excess
from anh_jax.errors import AnhError, ProgramError
from anh_jax.line import SignedRow
from anh_jax.program.interpret import read_stored
from anh_jax.program.interpreter.naming import named_operation
from anh_jax.program.interpreter.operations import Operation, Program
from anh_jax.program.signature import ProgramSignature, StoredProgram
from anh_jax.run_directory import RunDirectory
from attest import step_file
from attest.contract import Contract
from attest.envelope import Envelope
from attest.errors import RefusedError
from attest.numerics_class import ClassRules, Roundoff
from attest.refutation import (
    Accused,
    Claim,
    Refutation,
    Signed,
    claims,
    program_id,
    two_digits,
    verify_refutation,
)
from attest.signed_step import SignedStep, statement_of
from attest.statements import Attempt


@dataclass(frozen=True)
class Judged:
    """What running the one operator of a refutation gave: refuted unless `excess` is accepted."""

    accused: Accused
    operation: str
    excess: Excess

    @property
    def words(self) -> str:
        """Say in one line what the operator's results are and should be."""
        return excess_words(self.operation, self.excess)


def signed_parts(run: RunDirectory, signed: SignedRow, recording: Envelope) -> Signed:
    """Collect the envelopes that lead from a run to a recording of one of its rows.

    Raises AnhError where the row's envelope is not in the run directory.
    """
    step = signed_step(run, signed)
    return Signed(step.contract, step.genesis, step.attempt, step.row, recording)


def signed_step(run: RunDirectory, signed: SignedRow) -> SignedStep:
    """Collect the envelopes that lead from a run to one of its rows.

    Raises AnhError where the row's envelope is not in the run directory.
    """
    return SignedStep(
        contract=Contract.from_bytes(run.contract_bytes()),
        genesis=run.statement("genesis"),
        attempt=run.statement(f"attempt-{signed.attempt}"),
        row=_row_envelope(run, signed),
    )


def refute(
    signed: Signed, stored: StoredProgram, recording: FolderRecording, leaf: Leaf
) -> Refutation:
    """Return the file that shows one operator of a recording to be refuted."""
    found = leaf.excess
    return Refutation(
        signed=signed,
        signature=stored.signature.to_bytes(),
        artifact=stored.artifact,
        entry=leaf.entry,
        index=leaf.index,
        path=recording.path(leaf.index),
        inputs=leaf.inputs,
        outputs=leaf.outputs,
        claim=Claim(
            output=found.output,
            element=found.element,
            committed=two_digits(found.committed),
            bound=two_digits(found.error),
            excess=two_digits(found.value),
        ),
    )


def judge(refutation: Refutation) -> Judged:
    """Check a refutation and run its operator.

    Raises RefusedError where a signature, a path, a value or the claim does not hold, FormatError
    or ProgramError where a part is none, and AnhError where no bound of the operator is known.
    """
    accused = verify_refutation(refutation)
    signature = ProgramSignature.from_bytes(refutation.signature)
    program = read_stored(StoredProgram(refutation.artifact, signature)).program
    operation = named_operation(program, refutation.entry.name)
    _check_operands(operation, refutation)
    found = _run(program, operation, refutation, cast(Backend, accused.recording.backend))
    if found is None:
        raise AnhError(f"{operation.name}: no bound of it is known; nothing is shown")
    _check_claim(refutation.claim, found)
    return Judged(accused, operation.name, found)


def rules_of(contract: Contract, program: str) -> ClassRules:
    """Return the rules that operators of a contract's program are judged by.

    An update is float32 in every class.
    """
    rules = contract.numerics.rules
    if program != contract.programs.update:
        return rules
    unit = rules.roundoff.update
    fine = Roundoff(dot=unit, reduce=unit, elementwise=unit, storage=unit, update=unit)
    return dataclasses.replace(rules, roundoff=fine)


def _run(
    program: Program, operation: Operation, refutation: Refutation, backend: Backend
) -> Excess | None:
    """Run the operator; anybody may have written its program, so it may fail in any way."""
    recorded = program_id(refutation.signature, refutation.artifact)
    try:
        return check_operator(
            program,
            operation,
            [array_of(value) for value in refutation.inputs],
            [array_of(value) for value in refutation.outputs],
            rules=rules_of(refutation.signed.contract, recorded),
            backend=backend,
        )
    except (
        ArithmeticError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        words = f"{operation.name}: cannot be evaluated ({type(error).__name__})"
        raise ProgramError(words) from error


def _check_operands(operation: Operation, refutation: Refutation) -> None:
    """Refuse operands that are not of the operator's types.

    Raises:
        ProgramError: names the operand.
    """
    kinds = operation.input_types
    if len(kinds) != len(refutation.inputs):
        raise ProgramError(f"{operation.name}: takes {len(kinds)} operands")
    for place, (kind, value) in enumerate(zip(kinds, refutation.inputs, strict=True)):
        array = array_of(value)
        if not kind.accepts(array.shape, array.dtype):
            raise ProgramError(f"{operation.name}: operand {place} is no {kind.text}")


def _check_claim(claim: Claim, found: Excess) -> None:
    place = (claim.output, claim.element) == (found.output, found.element)
    numbers = (
        (claim.committed, found.committed),
        (claim.bound, found.error),
        (claim.excess, found.value),
    )
    if not place or not all(claims(text, value) for text, value in numbers):
        raise RefusedError("refutation: claim: the operator gives other numbers", check="claim")


def _row_envelope(run: RunDirectory, signed: SignedRow) -> Envelope:
    """Return the row as all workers of its attempt signed it, each in a file of his own."""
    attempt = statement_of(run.statement(f"attempt-{signed.attempt}"), Attempt)
    rows = [_worker_row(run, signed, rank) for rank in range(len(attempt.worker_keys))]
    signatures = (row.signatures[0] for row in rows)
    return Envelope(rows[0].payload, tuple(sorted(signatures, key=lambda each: each.keyid)))


def _worker_row(run: RunDirectory, signed: SignedRow, rank: int) -> Envelope:
    path = run.step_file(attempt=signed.attempt, rank=rank)
    for envelope in step_file.read(path) if path.exists() else ():
        if envelope.record_hash() == signed.record_hash:
            return envelope
    raise AnhError(f"{path}: holds no row of step {signed.row.step} as the run's line has it")
