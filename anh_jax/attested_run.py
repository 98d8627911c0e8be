"""Begins, resumes and closes a run: the statements of the author and of the run key.

The run key is held by whoever drives the run, never by a worker: workers sign steps with keys of
their own, which an attempt statement names. Nothing here stores or ships: statements are files in
the run directory, and `launch` (or `anh prove`) brings them to a log.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anh_jax.errors import AnhError
from anh_jax.export_weights import FILE_NAME
from anh_jax.line import Line, walk_line
from anh_jax.program.init_check import init_kind as program_init_kind
from anh_jax.program.storage import read_program
from anh_jax.run_directory import RunDirectory
from anh_jax.stated_class import class_facts, joint_class
from anh_jax.training.seams import AttemptGrant, AttemptRequest
from anh_jax.training.segments import decide_segments
from attest import merkle
from attest.contract import Contract
from attest.envelope import Envelope, sign
from attest.keys import PrivateKey
from attest.statements import (
    Attempt,
    ContractStatement,
    ExportedFile,
    Final,
    Genesis,
    Mesh,
    decode_statement,
    encode_statement,
)
from attest.statements import Line as LineCommitment


@dataclass(frozen=True)
class Origin:
    """What genesis says beside the contract: who trains, how, and from which state."""

    state_root: str
    plan: str
    operator: str
    execution_class: Mapping[str, str]
    environment: Mapping[str, str]
    digest_policy: str
    alg: str
    init: str


def begin(run: RunDirectory, origin: Origin) -> str:
    """Sign the contract and genesis with new author and run keys; return the run id in hex.

    A contract or genesis signed before (the run was stopped in between) is kept as it is.
    """
    contract = Contract.from_bytes(run.contract_bytes())
    if not run.has_statement("contract"):
        author = _own_key(run, "author")
        statement = ContractStatement(author=origin.operator, contract=contract)
        run.write_statement("contract", sign(encode_statement(statement), [author]))
    if not run.has_statement("genesis"):
        key = _own_key(run, "run")
        genesis = Genesis(
            state_root=origin.state_root,
            contract=contract.id,
            plan=origin.plan,
            run_key=key.public.hex(),
            trainer=origin.operator,
            execution_class=origin.execution_class,
            environment=origin.environment,
            digest_policy=origin.digest_policy,
            alg=origin.alg,
            init=origin.init,
            seed=contract.seed_rule,
        )
        run.write_statement("genesis", sign(encode_statement(genesis), [key]))
    return run_id(run)


def run_id(run: RunDirectory) -> str:
    """Return the record hash of genesis in hex: the run's name everywhere."""
    return run.statement("genesis").record_hash().hex()


def genesis_of(run: RunDirectory) -> Genesis:
    """Read genesis."""
    statement = decode_statement(run.statement("genesis").payload)
    if not isinstance(statement, Genesis):
        raise AnhError(f"{run.statement_path('genesis')}: holds a {statement.KIND}; restore it")
    return statement


def sign_attempt(
    run: RunDirectory, requests: Sequence[AttemptRequest], *, segments: str = "off"
) -> AttemptGrant:
    """Sign the attempt that the workers ask for, one request a rank, in order of rank.

    `segments` is `attest.segments` of the config; what it comes to is a fact of the attempt. Raises
    AnhError where the ranks disagree: they would train apart without saying so.
    """
    if [request.rank for request in requests] != list(range(len(requests))):
        raise AnhError(f"{run.root}: the workers' ranks are not 0, 1, 2, ...; restart the run")
    first = requests[0]
    for request in requests[1:]:
        if (request.resumed_record_hex, request.step, request.mesh) != (
            first.resumed_record_hex,
            first.step,
            first.mesh,
        ):
            raise AnhError(
                f"{run.root}: rank {request.rank} resumes elsewhere than rank 0; its view of "
                "checkpoints/ is stale"
            )
    if run.has_statement("final"):
        raise AnhError(f"{run.root}: the run is final; nothing of it can be signed any more")
    number = max(run.attempts(), default=0) + 1
    decision = decide_segments(segments, workers=len(requests), step_seconds=first.gradient_seconds)
    attempt = Attempt(
        resumed_from=first.resumed_record_hex or run_id(run),
        run=run_id(run),
        number=number,
        step=first.step,
        worker_keys=tuple(request.public_key_hex for request in requests),
        mesh=Mesh(**first.mesh),
        processes=len(requests),
        environment={**first.environment, **decision.facts, **_class_facts(run, requests)},
        reason=_reason(number, first),
    )
    envelope = sign(encode_statement(attempt), [run.key("run")])
    run.write_statement(f"attempt-{number}", envelope)
    return AttemptGrant(
        number=number,
        record=envelope.record_hash().hex(),
        segments=decision.every,
        segments_why=decision.why,
    )


def _class_facts(run: RunDirectory, requests: Sequence[AttemptRequest]) -> dict[str, str]:
    genesis = genesis_of(run).execution_class
    own = joint_class([request.execution_class for request in requests])
    return class_facts(own, {name: str(value) for name, value in genesis.items()})


def _reason(number: int, request: AttemptRequest) -> str:
    # A worker that finds no training checkpoint thinks that the run starts; the attempts know.
    if number == 1:
        return "start"
    return "resume" if request.reason == "start" else request.reason


def close(run: RunDirectory, metrics: Mapping[str, int | str]) -> Envelope:
    """Sign the final statement over the whole line; return it, also when it was signed before.

    `metrics` maps names to counts or hex-float strings. Raises AnhError where steps are missing.
    """
    if run.has_statement("final"):
        return run.statement("final")
    contract = Contract.from_bytes(run.contract_bytes())
    line = walk_line(run, run_id=bytes.fromhex(run_id(run)))
    if len(line.rows) != contract.steps:
        raise AnhError(
            f"{run.root}: {len(line.rows)} of {contract.steps} steps are signed; "
            f"go on with 'anh resume {run.root}'"
        )
    state_root = line.rows[-1].row.state_root
    if state_root is None:
        raise AnhError(f"{run.root}: the last row commits no state; its digest policy is wrong")
    final = Final(
        state_root=state_root,
        files=_exported_files(run),
        run=run_id(run),
        line=commit_line(line),
        steps=contract.steps,
        attempts=len(run.attempts()),
        metrics=metrics,
    )
    envelope = sign(encode_statement(final), [run.key("run")])
    run.write_statement("final", envelope)
    return envelope


def commit_line(line: Line) -> LineCommitment:
    """Return count and RFC 6962 root over the row hashes 0..T (docs/protocol.md)."""
    hashes = line.hashes
    root = merkle.tree_root([merkle.leaf_hash(row) for row in hashes])
    return LineCommitment(count=len(hashes), root=root.hex())


def _exported_files(run: RunDirectory) -> tuple[ExportedFile, ...]:
    # Only what the export rule makes: a stray file would make every honest audit fail.
    path = run.export / FILE_NAME
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise AnhError(
            f"{path}: cannot be read ({error.strerror}); 'anh resume {run.root}' exports again"
        ) from error
    return (ExportedFile(name=FILE_NAME, sha256=digest),)


def _own_key(run: RunDirectory, name: str) -> PrivateKey:
    path = run.key_path(name)
    if path.exists():
        return PrivateKey.load(path)
    key = PrivateKey.generate()
    key.save(path, name)
    return key


def init_kind(run: RunDirectory) -> str:
    """Say whether state 0 has the same bits on every backend: `exact`, else `class`."""
    contract = Contract.from_bytes(run.contract_bytes())
    init = read_program(run.programs, "init", id=contract.programs.init)
    return program_init_kind(init)
