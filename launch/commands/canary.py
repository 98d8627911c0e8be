"""`anh canary`: try auditors with a run that has faults planted in it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launch.compile_cache import set_compile_cache
from launch.errors import ExitCode
from launch.output import Form, emit, json_option, printable

if TYPE_CHECKING:
    from attest.canary import Tried


@click.group(name="canary")
def command() -> None:
    """Try auditors with a run that has faults planted in it.

    A lazy auditor signs without computing, a copying one signs what another found. Neither can know
    which steps of a canary run are faulty; an auditor who passes one of them is named.
    """


@command.command("plant")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--run-dir", required=True, type=click.Path(path_type=Path),
              help="Where the run is kept.")  # fmt: skip
@click.option("--faults", type=click.IntRange(min=1), default=4, show_default=True, metavar="N",
              help="Steps to plant a fault at.")  # fmt: skip
@click.option("--answer", required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Where the secret steps go; outside the run directory.")  # fmt: skip
@json_option
def plant_command(
    config: Path,
    overrides: tuple[str, ...],
    run_dir: Path,
    faults: int,
    answer: Path,
    form: Form,
) -> None:
    """Train a run with secret faults, and seal which steps they are at.

    The run is signed, logged and proven like any other. An intent in its log commits to the answer
    before the final record, so that nobody can invent faults once receipts are there.
    """
    set_compile_cache()
    from launch import canary_planting, training

    experiment = training.resolved(config, overrides, None)
    sealed = canary_planting.plant(experiment, run_dir, faults=faults, answer=answer)
    facts = {"run": str(run_dir), "runId": sealed.run, "answer": str(answer), "faults": faults}
    emit(
        form,
        facts,
        [
            f"faults planted in {run_dir} and sealed in its log: {faults:,}",
            f"the answer is in {answer}; show it to no auditor",
            f"once receipts are there: anh canary check {run_dir} --answer {answer}",
        ],
    )


@command.command("check")
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@click.option("--answer", required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="What 'anh canary plant' wrote.")  # fmt: skip
@click.option("--salts", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="What opens an auditor's own gradients; may be repeated.")  # fmt: skip
@json_option
def check_command(directory: Path, answer: Path, salts: tuple[Path, ...], form: Form) -> ExitCode:
    """Say of each receipt in D's log whether its auditor computed what it signed.

    Exits with 1 where one passed a faulty step of its sample, shows gradients that it did not
    compute, or gives another's as its own; with 2 where there is no receipt.
    """
    from launch import canary_check
    from launch.canary_planting import read_answer

    tried = canary_check.check(directory, read_answer(answer), salts)
    facts = {
        "receipts": [
            {"index": t.index, "auditor": t.operator, "hits": list(t.hits), "finding": t.finding,
             "words": t.words}
            for t in tried
        ]
    }  # fmt: skip
    emit(form, facts, [printable(line) for line in _lines(tried)])
    if any(t.finding in ("lazy", "copied") for t in tried):
        return ExitCode.FAILED
    return ExitCode.PASSED if tried else ExitCode.COULD_NOT_RUN


def _lines(tried: "tuple[Tried, ...]") -> list[str]:
    if not tried:
        return ["no receipt is in the log yet"]
    return [f"{t.operator} (index {t.index:,}): {t.finding}; {t.words}" for t in tried]
