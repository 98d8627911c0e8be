"""`anh log`: the log operator's side."""

import time
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

    D is a log's directory or a run's. Derives everything again from the stored entries, beside
    whoever writes; exits with 1 at the first damage.
    """
    from attest.log.fsck import fsck as check_log
    from launch.fsck_progress import FsckProgress

    found = check_log(log_folder(directory), progress=FsckProgress(time.monotonic).reached)
    document = {
        "origin": found.names.origin,
        "size": found.size,
        "signedSize": found.head.size,
        "signedRoot": found.head.root.hex(),
        "records": dict(found.kinds),
        "recordsPerSecond": int(found.records_per_second),
    }
    records = ", ".join(f"{count:,} {kind}" for kind, count in found.kinds)
    pairs = [
        ("origin", found.names.origin),
        ("entries", f"{found.size:,} ({records or 'none yet'})"),
        ("signed head", f"size {found.head.size:,}, root {found.head.root.hex()}"),
        ("checked", f"{found.records_per_second:,.0f} records a second"),
    ]
    emit(form, document, [f"{directory}: {toned('sound', Tone.GOOD)}", *table(pairs)])


@command.command()
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@click.option("--origin", metavar="NAME", required=True,
              help="The log's name for ever, as log.example.org/runs.")  # fmt: skip
@click.option("--witness", "witnesses", multiple=True, metavar="'VKEY URL'",
              help="A witness elsewhere to ask for cosignatures; repeatable.")  # fmt: skip
@click.option("--store", default="", metavar="postgresql://...",
              help="Where entries lie; default a file in D.")  # fmt: skip
@click.option("--tiles", default="", metavar="URL",
              help="Where published files lie, as s3://bucket/log; default D.")  # fmt: skip
@click.option("--heads", default="", metavar="URL",
              help="Where the signed head lies, apart from the entries; default D.")  # fmt: skip
@json_option
def init(
    *,
    directory: Path,
    origin: str,
    witnesses: tuple[str, ...],
    store: str,
    tiles: str,
    heads: str,
    form: Form,
) -> None:
    """Make an empty log in D with keys of its own.

    D/keys holds the keys of the log and of its own witness, D/log the log. Give the printed vkeys
    to whoever is to trust the log, by another way than the log itself.
    """
    from attest.log.places import Places
    from launch.log_serving import make_log

    places = Places(store=store, tiles=tiles, heads=heads)
    names = make_log(directory, origin, places=places, witnesses=witnesses)
    document = {"origin": origin, "log": names.log.to_text(), "witness": names.witness.to_text()}
    pairs = [("log", document["log"]), ("witness", document["witness"])]
    lines = [
        f"made log {origin} in {directory}",
        *table(pairs),
        f"serve it: anh log serve {directory}",
    ]
    emit(form, document, lines)


@command.command()
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@json_option
def freeze(*, directory: Path, form: Form) -> None:
    """Let a log take no record any more, for good, and publish its last checkpoint.

    D is a log's directory with the log's keys. A server of it may go on: it answers readers.
    """
    from launch.log_serving import freeze_log

    head = freeze_log(log_folder(directory))
    document = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
    emit(form, document, [f"{directory}: frozen at size {head.size:,}, root {head.root.hex()}"])


@command.command()
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8470, show_default=True,
              help="Port to listen on; 0 takes any.")  # fmt: skip
@click.option("--proxy", default="", metavar="ADDRESS",
              help="Believe this proxy whom it forwards for.")  # fmt: skip
@click.option("--checkpoint-seconds", type=click.FloatRange(min=0.01), default=0.5,
              show_default=True, help="Least time between two checkpoints.")  # fmt: skip
@click.option("--key-rate", type=click.FloatRange(min=1), default=2000, show_default=True,
              help="Records a second that one key may log on average.")  # fmt: skip
@click.option("--address-rate", type=click.FloatRange(min=1), default=10_000, show_default=True,
              help="Records a second that one address may hand in on average.")  # fmt: skip
@json_option
def serve(
    *,
    directory: Path,
    host: str,
    port: int,
    proxy: str,
    checkpoint_seconds: float,
    key_rate: float,
    address_rate: float,
    form: Form,
) -> None:
    """Serve a log over HTTP until Ctrl-C or SIGTERM.

    D is a log's directory or a run's, with the log's keys. Takes records, publishes checkpoints,
    and answers with tiles, proofs and runs. One process serves a log; TLS is a proxy's to add.
    """
    from launch.http_server import Place
    from launch.log_serving import Pace, serve_log

    def began(url: str, vkey: str) -> None:
        emit(form, {"url": url, "log": vkey}, [f"serving {directory} at {url}", f"  log  {vkey}"])

    pace = Pace(checkpoint_seconds, key_rate=key_rate, address_rate=address_rate)
    serve_log(log_folder(directory), Place(host, port, proxy), pace, began)


@command.command()
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@click.option("--name", default="log", show_default=True, help="The actor's name in the cluster.")
@click.option("--port", type=click.IntRange(1, 65535), default=8470, show_default=True,
              help="Port to listen on, on the actor's host.")  # fmt: skip
@json_option
def actor(*, directory: Path, name: str, port: int, form: Form) -> None:
    """Serve a log from a detached actor of the Ray cluster that RAY_ADDRESS names.

    D is a log's directory with the log's keys, on a disk that the actor's host sees. The actor goes
    on without this command, and is started again where it died; prints where it listens.
    """
    from launch.log_actor import serve_in_cluster

    url = serve_in_cluster(log_folder(directory), name, port)
    emit(form, {"name": name, "url": url}, [f"actor {name} serves {directory} at {url}"])


def log_folder(directory: Path) -> Path:
    """Return the log's folder: `directory` itself or, of a run directory, the one in it."""
    if not directory.is_dir():
        raise CommandError(f"{directory}: no such directory; name a log's or a run's")
    if (directory / "log.json").is_file():
        return directory
    if (directory / "log").is_dir():
        return directory / "log"
    raise CommandError(f"{directory}: holds no log (no log.json, no log/)")
