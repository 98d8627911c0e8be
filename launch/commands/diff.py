"""`anh diff`: compare two runs and name the first step that differs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launch.errors import ExitCode
from launch.output import Form, emit, json_option, printable

if TYPE_CHECKING:
    from launch.run_difference import Change, Difference


@click.command(name="diff")
@click.argument("first", metavar="D", type=click.Path(path_type=Path))
@click.argument("second", metavar="D2", type=click.Path(path_type=Path))
@json_option
def command(*, first: Path, second: Path, form: Form) -> int:
    """Compare two runs and name the first step that differs.

    Says what differs in programs, data, contract, config and environment, then the first step
    whose signed numbers differ. Exits with 0 where nothing differs and 1 where something does.
    """
    from launch.run_difference import compare

    difference = compare(first, second)
    emit(form, _document(difference), _lines(difference))
    return ExitCode.PASSED if difference.equal else ExitCode.FAILED


def _document(difference: "Difference") -> dict[str, Any]:
    apart = difference.apart
    found: dict[str, Any] = {
        name: [_change(change) for change in changes]
        for name, changes in difference.sections().items()
    }
    found["equal"] = difference.equal
    found["stepsCompared"] = difference.compared
    found["firstDifferingStep"] = None if apart is None else apart.step
    found["hint"] = None if apart is None else apart.hint
    found["step"] = [] if apart is None else [_change(change) for change in apart.changes]
    return found


def _change(change: "Change") -> dict[str, str | None]:
    return {"name": change.name, "first": change.first, "second": change.second}


def _lines(difference: "Difference") -> list[str]:
    lines: list[str] = []
    for name, changes in difference.sections().items():
        lines.append(f"{name}: {'equal' if not changes else f'{len(changes)} differ'}")
        lines += _changes(changes)
    apart = difference.apart
    if apart is None:
        return [*lines, f"steps: all {difference.compared} that both runs signed are equal"]
    lines += [f"steps: first difference at step {apart.step}", *_changes(apart.changes)]
    return [*lines, f"  ({apart.hint})"]


def _changes(changes: "tuple[Change, ...]") -> list[str]:
    width = max((len(change.name) for change in changes), default=0)
    return [
        f"  {change.name:<{width}}  {_shown(change.first)} -> {_shown(change.second)}"
        for change in changes
    ]


def _shown(value: str | None) -> str:
    if value is None:
        return "(absent)"
    text = printable(value)
    # The start of a digest tells two apart; --json has the whole of it.
    return f"{text[:12]}..." if len(text) == 64 else text
