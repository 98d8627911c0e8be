"""Carries out an audit of a final run: draw, re-execute, sign, log, prove."""

import hashlib
import itertools
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from anh_jax.attested_run import run_id
from anh_jax.audit.auditor import Auditor
from anh_jax.audit.findings import Findings
from anh_jax.audit.properties import property_statements
from anh_jax.audit.receipt import (
    Method,
    results_document,
    salts_document,
    write_receipt,
)
from anh_jax.audit.results import StepResult
from anh_jax.audit.sampling import Sample, chosen_sample, draw_sample
from anh_jax.audit.transcript import Transcript
from anh_jax.run_directory import RunDirectory
from anh_jax.workbench import MeshSizes
from attest.contract import Numerics
from attest.errors import AttestError
from attest.log.run_log import RunLog
from attest.policy import load_policy
from attest.spread_seed import spread_seed
from attest.statements import Audit, Property
from attest.tolerances import backends, why_not_counted
from attest.trust import NumericsDemand, Policy
from launch.announcement import begun_run
from launch.audit_sources import find_sources, operators_of
from launch.auditor_home import keep_salts
from launch.auditor_name import Asked, AuditorName, auditor_name, read_policy
from launch.errors import CommandError
from launch.logged_run import read_announced, read_closed_run
from launch.logs import check_log, open_log_of, publishes
from launch.output import progress
from launch.prover import write_proof
from launch.state_sources import open_source
from launch.verification import verify_proof
from launch.virtual_devices import give_devices
from launch.withheld_states import Evidence, write_evidence

DEFAULT_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to audit: so many sampled steps, or chosen ones; bits alone, or on a mesh besides.

    `states` names where states are asked for, a folder or a URL; None takes what lies in D.
    """

    samples: int | None = None
    steps: tuple[int, ...] = ()
    mesh: MeshSizes | None = None
    states: str | None = None


@dataclass(frozen=True, slots=True)
class Audited:
    """An audit that is over and in the log.

    `total` counts the run's steps; `sources` are the operators whose nonces drew the sample.
    `proof` is None where the log's keys are not at hand: its operator publishes then. `client` is
    what the light client says of it, under the policy asked for or the run's own. `artifact` names
    a file on disk that is not the exported one, or is empty; `loose` says why a bounded audit under
    the contract's tolerances does not count, or is empty.
    """

    run: str
    total: int
    who: AuditorName
    trainer: str
    sample: Sample
    sources: tuple[str, ...]
    receipt: Audit
    properties: tuple[Property, ...]
    findings: Findings
    indices: tuple[int, ...]
    results: Path
    proof: Path | None
    client: str
    artifact: str
    loose: str
    evidence: Evidence


def audit(directory: Path, asked: Asked, wanted: Wanted) -> Audited:
    """Re-execute steps of a final run, log a signed receipt and properties, rebuild the proof.

    Raises CommandError where the run is not over or the sample cannot be drawn yet, and what the
    log's own check raises where the log is damaged.
    """
    run = begun_run(directory)
    policy = read_policy(asked)
    with open_log_of(directory) as log:
        check_log(directory)
        announced = read_announced(log, run_id(run))
        if announced.final_index is None:
            raise CommandError(_not_over(run))
        transcript = read_closed_run(log, run_id(run), run)
        who = auditor_name(directory, asked, policy, transcript.genesis.trainer)
        if wanted.steps:
            sample = chosen_sample(wanted.steps, total=transcript.final.steps)
        else:
            sample = draw_sample(
                transcript.line,
                final_record=transcript.final_record,
                total=transcript.final.steps,
                k=_size(wanted, policy),
                sources=find_sources(log, announced, who, policy),
            )
        return _carry_out(
            _Order(run, log, transcript, who, sample, operators_of(sample.sources, announced)),
            wanted,
            policy,
        )


@dataclass(frozen=True, slots=True)
class _Order:
    run: RunDirectory
    log: RunLog
    transcript: Transcript
    who: AuditorName
    sample: Sample
    sources: tuple[str, ...]


def _carry_out(order: _Order, wanted: Wanted, policy: Policy | None) -> Audited:
    run, transcript, who, mesh = order.run, order.transcript, order.who, wanted.mesh
    attempts = (attempt.mesh for attempt in transcript.attempts.values())
    meshes = [MeshSizes(data=a.data, fsdp=a.fsdp, tensor=a.tensor) for a in attempts]
    give_devices([*meshes, *([] if mesh is None else [mesh])])
    with ExitStack() as stack:
        source = None
        if wanted.states is not None:
            source = stack.enter_context(open_source(wanted.states, transcript))
        auditor = stack.enter_context(
            Auditor(run, transcript, mesh=mesh, source=source, seed=_seed(order))
        )
        findings = _watched(auditor, order.sample.steps, run.root.name)
        own_class = auditor.own_class()
        contract = auditor.materials.contract
        withheld = auditor.withheld
    receipt = write_receipt(
        findings,
        transcript,
        order.sample,
        auditor=who.operator,
        method=_method(findings),
        own_class=own_class,
    )
    properties: tuple[Property, ...] = ()
    if findings.counts is not None:
        properties = tuple(
            property_statements(contract, transcript, findings.counts, auditor=who.operator)
        )
    envelope = who.sign(receipt.audit)
    record = envelope.record_hash().hex()
    # Both before the receipt is logged: a receipt whose rows nobody can open shows nothing.
    keep_salts(record, salts_document(receipt, findings, record=record))
    results = _keep_results(run, results_document(receipt, findings, record=record))
    evidence = write_evidence(
        withheld,
        results,
        who=who,
        signed=transcript,
        source=wanted.states or "",
        log=order.log,
        run=run,
    )
    statements = [envelope, *(who.sign(found) for found in properties)]
    indices = tuple(order.log.append(statements, keys=[who.key.public]))
    proof = write_proof(run, order.log, reader=policy) if publishes(run) else None
    return Audited(
        run=transcript.run,
        total=transcript.final.steps,
        who=who,
        trainer=transcript.genesis.trainer,
        sample=order.sample,
        sources=order.sources,
        receipt=receipt.audit,
        properties=properties,
        findings=findings,
        indices=indices,
        results=results,
        proof=proof,
        client="" if proof is None else _client(run, proof, policy),
        artifact=_odd_artifact(run, transcript),
        loose=_loose(receipt.audit, transcript, contract.numerics, policy),
        evidence=evidence,
    )


def _seed(order: _Order) -> int:
    nonces = {source.keyid: source.nonce for source in order.sample.sources}
    return spread_seed(order.transcript.final_record, order.who.key.keyid, nonces)


def _method(findings: Findings) -> Method:
    """Return `exact` only where no step was weighed within bounds."""
    weighed = any(result.a is not None or result.b is not None for result in findings.results)
    return "bounded" if weighed else "exact"


def _loose(audit: Audit, transcript: Transcript, numerics: Numerics, policy: Policy | None) -> str:
    if audit.method == "exact":
        return ""
    demand = NumericsDemand() if policy is None else policy.numerics
    pairs = backends(audit, (transcript.genesis, *transcript.attempts.values()))
    return why_not_counted(numerics, demand, pairs)


def _watched(auditor: Auditor, steps: Sequence[int], title: str) -> Findings:
    with progress(f"audit {title}", total=len(steps)) as bar:
        refuted = 0

        def told(result: StepResult, done: int) -> None:
            nonlocal refuted
            refuted += result.outcome == "refuted"
            bar.reached(done, {"step": result.step, "refuted": refuted})

        return auditor.audit(tuple(steps), told)


def _not_over(run: RunDirectory) -> str:
    if run.has_statement("final"):
        return (
            f"{run.root}: the final record is not in the log yet; 'anh prove {run.root}' ships it"
        )
    return (
        f"{run.root}: the run is not final; --intend announces an audit now, and the audit itself "
        "comes after the last step"
    )


def _size(wanted: Wanted, policy: Policy | None) -> int:
    if wanted.samples is not None:
        return wanted.samples
    return max(DEFAULT_SAMPLES, 0 if policy is None else policy.numerics.min_k)


def _keep_results(run: RunDirectory, data: bytes) -> Path:
    folder = run.root / "audits"
    folder.mkdir(exist_ok=True)
    for number in itertools.count(1):
        path = folder / f"{number}.json"
        try:
            with path.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        except FileExistsError:
            continue
        return path
    raise AssertionError


def _client(run: RunDirectory, proof: Path, policy: Policy | None) -> str:
    """Ask the light client: under the policy given, else under the run's own."""
    trusted = policy or load_policy(run.root / "policy.toml")
    try:
        return verify_proof(proof.read_bytes(), trusted).verdict.headline()
    except AttestError as error:
        return f"refused: {error}"


def _odd_artifact(run: RunDirectory, transcript: Transcript) -> str:
    """Name an exported file on disk that is not the one that the final record names."""
    for named in transcript.final.files:
        path = run.export / named.name
        if not path.is_file():
            continue
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != named.sha256:
                return str(path)
    return ""
