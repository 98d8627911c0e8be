"""`anh verify`: the light client. Imports click, attest and what verifies; nothing else."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launch.errors import CommandError, ExitCode
from launch.output import Form, Tone, emit, json_option, printable, toned
from launch.verification import (
    TimedVerdict,
    consistency_source,
    memory_of,
    read_file,
    read_policy,
    verify_opened_tile,
    verify_proof_file,
)

if TYPE_CHECKING:
    from attest.memory import Memory
    from attest.opening import Opening
    from attest.trust import Policy

_PATH = click.Path(path_type=Path)
_OPENED = b'{"format":"anh opened tile'
_REFUTATION = b'{"artifact":"'
_RESULTS = b'{"checks":'
_RECORD = b"c2sp.org/tlog-proof@"
_CANARY = b'{"faults":'
_STATES = (b'{"attempt":', b'{"key":"')


@click.command(name="verify")
@click.argument("file", type=_PATH)
@click.option("--policy", type=_PATH, metavar="P", help="Whom you trust (TOML).")
@click.option("--artifact", type=_PATH, metavar="DIR", help="The exported weights to compare.")
@click.option("--proof", type=_PATH, metavar="FILE", help="The run proof that FILE rests on.")
@click.option("--history", type=_PATH, metavar="FILE", help="Ties the log to an older size of it.")
@click.option("--log", metavar="DIR|URL", help="The log itself, to tie it to an older size.")
@json_option
def command(
    *,
    file: Path,
    policy: Path | None,
    artifact: Path | None,
    proof: Path | None,
    history: Path | None,
    log: str | None,
    form: Form,
) -> int:
    """Check a run proof, a record, an opening or audit results against a policy, or a refutation.

    The first line says how far the run was checked and by whom; the others say what that is worth
    and what was not checked. The newest checkpoint of the log is remembered in $ANH_HOME/logs, so
    that a log cannot show you two histories.
    """
    data = _read_proof(file)
    if data.startswith(_REFUTATION):
        # It stands on the accused run's own signatures: nobody has to be trusted.
        from launch.refuting import check_refutation

        answer = check_refutation(data)
        emit(form, answer.document, answer.lines)
        return answer.exit_code
    if data.startswith(_STATES):
        from launch.state_findings import check_state_evidence

        answer = check_state_evidence(data, None if policy is None else read_policy(policy))
        emit(form, answer.document, answer.lines)
        return answer.exit_code
    if policy is None:
        raise click.UsageError("Missing option '--policy'.")
    trusted = read_policy(policy)
    if history is not None and log is not None:
        raise CommandError("--history and --log: give one of them")
    if data.startswith(_CANARY):
        from launch.canary_evidence import check_canary_answer

        answer = check_canary_answer(data, read_file(_needed(proof, file)), trusted)
        emit(form, answer.document, answer.lines)
        return answer.exit_code
    memory = memory_of(trusted, consistency_source(history=history, log=log))
    if data.startswith(_RECORD):
        from launch.record_verification import verify_record_file

        shown = verify_record_file(data, trusted, proof, memory)
        emit(form, shown.document, shown.lines)
        return shown.exit_code
    if data.startswith(_OPENED):
        proof = _needed(proof, file)
        proof_data = read_file(proof)
        found = verify_proof_file(proof, proof_data, trusted, artifact=artifact, history=memory)
        return _emit_tile(verify_opened_tile(data, proof_data).opening, found, form)
    if data.startswith(_RESULTS):
        return _verify_results(data, _needed(proof, file), trusted, memory, form)
    if proof is not None:
        raise CommandError(f"--proof: {file} is no opened tile and no audit results")
    found = verify_proof_file(file, data, trusted, artifact=artifact, history=memory)
    document = found.verdict.to_json() | {"milliseconds": round(found.milliseconds, 3)}
    emit(form, document, _lines(found))
    return found.verdict.exit_code


def _read_proof(file: Path) -> bytes:
    try:
        return read_file(file)
    except FileNotFoundError:
        from launch.unsigned_run import NOTHING_SIGNED, is_unsigned

        if is_unsigned(file.parent):
            raise CommandError(f"{file}: no such file: {NOTHING_SIGNED}") from None
        raise


def _needed(proof: Path | None, file: Path) -> Path:
    if proof is None:
        raise CommandError(f"{file}: rests on its run's proof: add --proof D/run.proof")
    return proof


def _verify_results(
    data: bytes, proof: Path, policy: "Policy", memory: "Memory | None", form: Form
) -> int:
    """Check what an audit found, step by step, against its receipt; then the proof it is in."""
    from attest.audit_results import check_results
    from attest.proof import parse_proof

    proof_data = read_file(proof)
    # First: a receipt that refutes the run makes the client refuse the proof.
    shown = check_results(data, parse_proof(proof_data))
    found = verify_proof_file(proof, proof_data, policy, artifact=None, history=memory)
    weighed = sum(result.weighed for result in shown.results)
    words = f"{len(shown.results):,} results are those of receipt {shown.receipt[:16]}"
    if weighed:
        words += f"; {weighed:,} were weighed with the noise of seed {shown.spread_seed}, as due"
    document = found.verdict.to_json() | {
        "milliseconds": round(found.milliseconds, 3),
        "results": {
            "receipt": shown.receipt,
            "steps": [result.step for result in shown.results],
            "weighed": weighed,
            "spreadSeed": shown.spread_seed,
        },
    }
    emit(form, document, [printable(words), *_lines(found)])
    return found.verdict.exit_code


def _emit_tile(opened: "Opening", found: TimedVerdict, form: Form) -> int:
    path = "/".join(map(str, opened.header.path))
    place = ",".join(map(str, opened.index)) or "0"
    words = f"tile {place} of {path} is in the state after step {opened.step}"
    document = found.verdict.to_json() | {
        "milliseconds": round(found.milliseconds, 3),
        "opened": {"path": path, "tile": list(opened.index), "step": opened.step},
    }
    emit(form, document, [printable(words), *_lines(found)])
    return found.verdict.exit_code


def _lines(found: TimedVerdict) -> list[str]:
    first, *rest = found.verdict.text().rstrip("\n").split("\n")
    passed = found.verdict.exit_code == ExitCode.PASSED
    tone = (Tone.DOUBTFUL if found.verdict.own else Tone.GOOD) if passed else Tone.BAD
    time = f"checked in {found.milliseconds:.1f} ms"
    if found.remembering:
        time += f"; the log's checkpoint remembered in {found.remembering:.1f} ms"
    return [toned(first, tone), *rest, time]
