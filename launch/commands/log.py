"""`anh log`: the log operator's side."""

from pathlib import Path

import click

from launch.errors import CommandError
from launch.output import Form, Tone, emit, json_option, table, toned


@click.group(name="log")
def command() -> None:
    """Look after a transparency log."""


@command.command()
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@json_option
def fsck(*, directory: Path, form: Form) -> None:
    """Check a log from the ground up: records, order, signatures, tiles, heads.

    D is a log's directory or a run's. Derives everything again from the stored entries; exits with
    1 at the first damage.
    """
    from attest.log.fsck import fsck as check_log

    found = check_log(log_folder(directory))
    document = {
        "origin": found.names.origin,
        "size": found.size,
        "signedSize": found.head.size,
        "signedRoot": found.head.root.hex(),
        "records": dict(found.kinds),
    }
    records = ", ".join(f"{count:,} {kind}" for kind, count in found.kinds)
    pairs = [
        ("origin", found.names.origin),
        ("entries", f"{found.size:,} ({records or 'none yet'})"),
        ("signed head", f"size {found.head.size:,}, root {found.head.root.hex()}"),
    ]
    emit(form, document, [f"{directory}: {toned('sound', Tone.GOOD)}", *table(pairs)])


def log_folder(directory: Path) -> Path:
    """Return the log's folder: `directory` itself or, of a run directory, the one in it."""
    if not directory.is_dir():
        raise CommandError(f"{directory}: no such directory; name a log's or a run's")
    if (directory / "log.json").is_file():
        return directory
    if (directory / "log").is_dir():
        return directory / "log"
    raise CommandError(f"{directory}: holds no log (no log.json, no log/)")
