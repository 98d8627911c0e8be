"""`anh inspect`: say what a file of ours holds."""

from pathlib import Path

import click

from launch.output import Form, emit, json_option, printable, table


@click.command(name="inspect")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def command(*, file: Path, form: Form) -> None:
    """Say what a file of ours holds.

    Knows signed statements, step files, run proofs, log checkpoints, contracts, programs and their
    signatures, openings, metrics, policies, keys and run directories. Checks the form of FILE and
    verifies nothing: signatures are listed, not checked.
    """
    from launch.file_kinds import describe

    found = describe(file)
    document = {
        "file": str(file),
        "kind": found.kind,
        "facts": [{"name": name, "value": value} for name, value in found.facts],
        "notes": list(found.notes),
    }
    lines = [f"{file}: {found.kind} (form checked, nothing verified)"]
    lines += table([(printable(name), printable(value)) for name, value in found.facts])
    emit(form, document, [*lines, *(f"  {note}" for note in found.notes)])
