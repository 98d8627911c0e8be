"""Makes witnesses, and serves them: what `anh witness` does."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from attest.errors import FormatError
from attest.keys import PrivateKey, VerifierKey
from attest.witness import Witness
from launch.errors import CommandError

if TYPE_CHECKING:
    from launch.http_server import Place


def make_witness(directory: Path, name: str) -> VerifierKey:
    """Make a witness with a key of its own in a directory that holds nothing.

    Raises CommandError where it holds something, FormatError for a name that is no key name.
    """
    if directory.exists() and any(directory.iterdir()):
        raise CommandError(f"{directory}: is not empty; give the witness a directory of its own")
    (directory / "keys").mkdir(parents=True, mode=0o700)
    key = PrivateKey.generate()
    key.save(directory / "keys" / "witness", name)
    return Witness.create(directory / "memory", key, name).vkey


def open_witness(directory: Path) -> Witness:
    """Open a witness; raises CommandError where there is none, InputError for a damaged one."""
    if not (directory / "keys" / "witness").exists():
        raise CommandError(
            f"{directory}: holds no witness; make one: anh witness init {directory} --name NAME"
        )
    return Witness(directory / "memory", PrivateKey.load(directory / "keys" / "witness"))


def take_on(directory: Path, vkey: str) -> VerifierKey:
    """Register a log with a witness; raises CommandError for what is no log's vkey."""
    try:
        log = VerifierKey.from_text(vkey)
    except FormatError as error:
        raise CommandError(f"{vkey[:80]}: {error}") from error
    open_witness(directory).register(log)
    return log


def serve_witness(directory: Path, place: "Place", began: Callable[[str, str], None]) -> None:
    """Serve a witness until it is stopped; `began` gets its URL and vkey."""
    from attest.witness_service import application
    from launch.http_server import HttpServer

    witness = open_witness(directory)
    server = HttpServer(application(witness), place)
    server.run(lambda: began(server.url, witness.vkey.to_text()))
