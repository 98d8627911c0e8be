"""`anh doctor`: what would stop a run on this host, and the fix."""

from pathlib import Path
from typing import Any

import click

from launch.errors import ExitCode
from launch.output import Form, Tone, emit, json_option, toned


@click.command(name="doctor")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where the run would be written.",
)
@json_option
def command(*, run_dir: Path, form: Form) -> int:
    """Say what would stop a run on this machine, and the fix.

    Looks at Python, packages, disk, shared memory, ports, stale TPU locks and devices. Exits with
    1 where something would stop a run.
    """
    from launch import preflight
    from launch.preflight import Status

    tones = {Status.GOOD: Tone.GOOD, Status.WARN: Tone.DOUBTFUL, Status.STOP: Tone.BAD}
    documents: list[dict[str, Any]] = []
    lines: list[str] = []
    worst = ExitCode.PASSED
    for finding in preflight.findings(run_dir):
        if finding.status is Status.STOP:
            worst = ExitCode.FAILED
        documents.append(
            {
                "name": finding.name,
                "status": finding.status.value,
                "detail": finding.detail,
                "fix": finding.fix,
            }
        )
        mark = toned(f"{finding.status.value:<4}", tones[finding.status])
        lines.append(f"{mark}  {finding.name:<13}  {finding.detail}")
        if finding.fix:
            lines.append(f"{'':<19}  fix: {finding.fix}")
    counted = sum(1 for document in documents if document["status"] != Status.GOOD.value)
    needs = "needs" if counted == 1 else "need"
    lines.append("" if counted == 0 else f"{counted} of {len(documents)} {needs} attention")
    emit(form, {"findings": documents, "exitCode": int(worst)}, [line for line in lines if line])
    return worst
