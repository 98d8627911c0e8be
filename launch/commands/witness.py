"""`anh witness`: cosign other people's logs."""

from pathlib import Path

import click

from launch.output import Form, emit, json_option, table

_D = click.argument("directory", metavar="D", type=click.Path(path_type=Path))


@click.group(name="witness")
def command() -> None:
    """Cosign the heads of logs, each only if it extends the last one.

    D keeps the witness's key and what it remembers of each log. Lose neither: a witness without
    its memory might cosign a second history, and so refuses.
    """


@command.command()
@_D
@click.option("--name", required=True, help="The witness's key name, as witness.example.org/a.")
@json_option
def init(*, directory: Path, name: str, form: Form) -> None:
    """Make a witness in D, with a key of its own, that knows no log yet."""
    from launch.witness_serving import make_witness

    vkey = make_witness(directory, name).to_text()
    lines = [f"made witness {name} in {directory}", *table([("witness", vkey)])]
    emit(form, {"name": name, "witness": vkey}, lines)


@command.command(name="add-log")
@_D
@click.argument("vkey", metavar="VKEY")
@json_option
def add_log(*, directory: Path, vkey: str, form: Form) -> None:
    """Take on a log by its vkey, which its operator gives you."""
    from launch.witness_serving import take_on

    log = take_on(directory, vkey)
    emit(
        form,
        {"origin": log.name, "log": vkey},
        [f"{directory}: cosigns log {log.name} from now on"],
    )


@command.command()
@_D
@json_option
def show(*, directory: Path, form: Form) -> None:
    """Show the witness's vkey, and each log with the size it has cosigned."""
    from launch.witness_serving import open_witness

    witness = open_witness(directory)
    sizes = {log.name: witness.size(log.name) for log in witness.logs()}
    vkey = witness.vkey.to_text()
    rows = [("witness", vkey), *((name, f"size {size:,}") for name, size in sizes.items())]
    emit(form, {"witness": vkey, "logs": sizes}, table(rows, indent=0))


@command.command()
@_D
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8471, show_default=True,
              help="Port to listen on; 0 takes any.")  # fmt: skip
@click.option("--proxy", default="", metavar="ADDRESS",
              help="Believe this proxy whom it forwards for.")  # fmt: skip
@json_option
def serve(*, directory: Path, host: str, port: int, proxy: str, form: Form) -> None:
    """Serve the witness over HTTP (C2SP tlog-witness) until Ctrl-C or SIGTERM."""
    from launch.http_server import Place
    from launch.witness_serving import serve_witness

    def began(url: str, vkey: str) -> None:
        lines = [f"serving {directory} at {url}", f"  witness  {vkey}"]
        emit(form, {"url": url, "witness": vkey}, lines)

    serve_witness(directory, Place(host, port, proxy), began)
