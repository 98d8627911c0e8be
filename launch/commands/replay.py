"""`anh replay`: make a step again, bit for bit, and show it, hand it over or serve it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launch.compile_cache import set_compile_cache
from launch.errors import CommandError, ExitCode
from launch.output import Form, Tone, emit, json_option, printable, table, toned

if TYPE_CHECKING:
    from anh_jax.audit.regeneration import RegeneratedStep
    from launch.replayed_files import Written
    from launch.replaying import Opened
    from launch.state_server import StateServer

DEFAULT_PORT = 8471


@click.command(name="replay")
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@click.option("--step", "steps", type=click.IntRange(min=1), multiple=True, metavar="N",
              help="The step; with --serve the steps to show, default all.")  # fmt: skip
@click.option("--attempt", type=click.IntRange(min=1), metavar="A",
              help="Whose row of the step, where several took it from one state.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="Write states and gradient of the step as files.")  # fmt: skip
@click.option("--serve", is_flag=True, help="Serve states over HTTP until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), help="For --serve; 0 is any; default 8471.")
@click.option("--pdb", is_flag=True, help="Stop in Python's debugger before the step.")
@json_option
def command(
    *,
    directory: Path,
    steps: tuple[int, ...],
    attempt: int | None,
    out: Path | None,
    serve: bool,  # click hands flags over as bools
    port: int | None,
    pdb: bool,
    form: Form,
) -> int:
    """Make a step of a run again, bit for bit, from the nearest training checkpoint.

    Prints the step's numbers beside the signed ones. With --out the states before and after it and
    its gradient are written for an auditor elsewhere; with --serve they are made when an audit
    asks: anh audit D --states URL. Nothing that differs from the signed rows is handed over.
    """
    set_compile_cache()
    if serve:
        if out is not None or pdb or attempt is not None:
            raise CommandError("--serve: makes steps when asked; --out and --pdb go without it, "
                               "--attempt too")  # fmt: skip
        _serve(directory, frozenset(steps), DEFAULT_PORT if port is None else port, form)
        return ExitCode.PASSED
    if port is not None:
        raise CommandError("--port: goes with --serve")
    if len(steps) != 1:
        raise CommandError("name one step with --step N; --serve takes several")
    if pdb and form is Form.JSON:
        raise CommandError("--pdb: talks on standard output, so --json goes without it")
    return _replay(directory, _Taken(steps[0], attempt), out, form, pdb)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A step, and whose row of it; None takes the line's."""

    step: int
    attempt: int | None


def _replay(directory: Path, taken: _Taken, out: Path | None, form: Form, pdb: bool) -> int:
    from launch.output import progress
    from launch.replaying import opened_run

    step = taken.step
    with progress(f"replay {directory.name}", total=step) as bar:
        with opened_run(directory, lambda number: bar.reached(number, {})) as opened:
            begun = opened.regeneration.beginning(step, attempt=taken.attempt)
            if pdb:
                from launch.step_debugger import stop_before

                stop_before(begun)
            made = opened.regeneration.take(begun)
            written = None
            if out is not None:
                from launch.replayed_files import write_step

                opened.regeneration.check(made)
                written = write_step(opened, made, out)
        bar.reached(step, {})
    emit(form, _document(opened, made, written), _lines(opened, made, written))
    return ExitCode.FAILED if made.differs() else ExitCode.PASSED


def _document(
    opened: "Opened", made: "RegeneratedStep", written: "Written | None"
) -> dict[str, Any]:
    return {
        "run": opened.signed.run,
        "step": made.signed.row.step,
        "attempt": made.signed.attempt,
        "numbers": {name: {"replayed": a, "signed": b} for name, a, b in made.pairs()},
        "differs": list(made.differs()),
        "files": [] if written is None else [str(path) for path in written.files],
    }


def _lines(opened: "Opened", made: "RegeneratedStep", written: "Written | None") -> list[str]:
    row = made.signed.row
    if differs := made.differs():
        head = toned(f"DIFFERENT: {', '.join(differs)}", Tone.BAD)
    elif made.numbers is None:
        head = toned("as signed: read from what the loop retained", Tone.GOOD)
    else:
        head = toned("every number is as signed", Tone.GOOD)
    lines = [f"step {row.step} of run {opened.signed.run}, attempt {made.signed.attempt}: {head}"]
    lines += table([(name, _both(a, b)) for name, a, b in made.pairs()])
    if written is not None:
        lines.append(f"wrote {len(written.files)} files ({written.size:,} bytes):")
        lines += [printable(f"  {path}") for path in written.files]
    return lines


def _both(ours: str | int, signed: str | int) -> str:
    shown = _shown(ours)
    return shown if ours == signed else f"{shown}, signed {_shown(signed)}"


def _shown(value: str | int) -> str:
    text = str(value)
    return f"{float.fromhex(text):.6g}  ({text})" if "0x" in text else text


def _serve(directory: Path, steps: frozenset[int], port: int, form: Form) -> None:
    from launch.state_server import TOKEN
    from launch.state_serving import serve

    def began(server: "StateServer", opened: "Opened") -> None:
        named = ", ".join(map(str, sorted(steps)))
        document = {
            "url": server.url,
            "run": opened.signed.run,
            "steps": sorted(steps),
            "signed": opened.key is not None,
            "token": server.token is not None,
        }
        pairs = [
            ("run", opened.signed.run),
            ("steps", named or f"1 to {opened.steps}"),
            ("signed", "by the run key" if opened.key else "no: the run key is not here"),
            (
                "token",
                f"needed ({TOKEN})" if server.token else "none: this machine's users may ask",
            ),
        ]
        lines = [f"serving states at {server.url}", *table(pairs)]
        emit(form, document, [printable(line) for line in lines])

    serve(directory, port=port, steps=steps, token=os.environ.get(TOKEN) or None, began=began)
