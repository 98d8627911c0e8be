"""`anh redteam`: attack a contract in every way we know and count what the checks see."""

from pathlib import Path

import click

from launch.compile_cache import set_compile_cache
from launch.errors import CommandError, ExitCode
from launch.output import Form, emit, json_option


@click.command(name="redteam")
@click.argument("config", required=False, metavar="[CONFIG]", type=click.Path(path_type=Path))
@click.option("--attack", "attacks", multiple=True, metavar="NAME",
              help="This attack, several times if need be; default all, and `honest`.")  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="Name the attacks and end.")
@click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Runs to train for each attack.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="Keep the runs, redteam.json and redteam.html there.")  # fmt: skip
@json_option
def command(
    *,
    config: Path | None,
    attacks: tuple[str, ...],
    listing: bool,  # click hands flags over as bools
    rounds: int,
    out: Path | None,
    form: Form,
) -> int:
    """Attack a contract in every way we know and count what the checks see.

    Trains short real runs of CONFIG (a small one on digits by default) in which one thing is wrong
    each, lets the real auditor, log and client judge them, and prints how many were detected. Also
    counts false rejects over honest variants. Exits with 1 where an attack that is expected to be
    detected was not, or an honest variant was refused.
    """
    set_compile_cache()
    from launch.redteam import suite

    if listing:
        found = suite.catalogue()
        rows = [[a.name, a.family, a.expected.verdict, a.what] for a in found]
        emit(form, {"attacks": [dict(zip(_HEADS, row, strict=True)) for row in rows]},
             _aligned(rows))  # fmt: skip
        return ExitCode.PASSED
    if out is not None and out.exists() and any(out.iterdir()):
        raise CommandError(f"{out}: is not empty; name a new folder")
    from anh_jax.redteam.table import HEADS, columns

    told = (lambda line: click.echo(line, err=True)) if form is Form.TEXT else (lambda line: None)
    result = suite.carry_out(config, attacks, rounds=rounds, folder=out, told=told)
    lines = _aligned([list(HEADS), *columns(result.lines)])
    lines += [f"{name}: nothing to attack here: {why}" for name, why in result.skipped.items()]
    if result.honest is not None:
        lines += ["", *result.honest.lines()]
    if out is not None:
        _keep(out, result)
    emit(form, result.document(), lines)
    refused = result.honest is not None and result.honest.refused
    return ExitCode.FAILED if result.missed or refused else ExitCode.PASSED


_HEADS = ("name", "family", "expected", "what")


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _keep(out: Path, result: object) -> None:
    import json

    from anh_jax.run_directory import write_atomically
    from launch.redteam.report import page
    from launch.redteam.suite import Result

    assert isinstance(result, Result)
    text = json.dumps(result.document(), indent=1) + "\n"
    write_atomically(out / "redteam.json", text.encode())
    write_atomically(out / "redteam.html", page(result).encode())
