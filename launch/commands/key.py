"""`anh key`: make Ed25519 keys, show their public halves, say what may become of them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, VerifierKey
from launch.errors import CommandError
from launch.key_home import key_folder, key_path, locate, make_key
from launch.output import Form, emit, json_option, table

if TYPE_CHECKING:
    from attest.envelope import Envelope
    from attest.statements import KeyEvent

_OWNED = ("author", "run", "auditor", "monitor", "reporter", "holder")


def _said(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that every key event needs."""
    for option in (
        click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE",
                     help="Write the signed event there; 'anh key submit' logs it."),
        click.option("--from", "index", required=True, type=click.IntRange(0), metavar="INDEX",
                     help="First log index it holds for."),
        click.option("--origin", required=True, help="Origin of the log that it is for."),
        click.option("--role", required=True, type=click.Choice(_OWNED), help="The key's role."),
        click.option("--owner", required=True, metavar="NAME", help="The owner's offline key."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(name="key")
def command() -> None:
    """Make and show Ed25519 keys; endorse, rotate and revoke them by an owner's offline key.

    Keys are OpenSSH files of mode 0600 in $ANH_HOME/keys or ~/.config/anh/keys. A key has one
    role: give each auditor, monitor, witness and log a key of its own.
    """


@command.command()
@click.argument("name")
@json_option
def new(*, name: str, form: Form) -> None:
    """Make a key called NAME; one that exists is never replaced."""
    key = make_key(name)
    path = key_path(name)
    document = _document(name, path, key)
    emit(form, document, [f"made {path} (private, mode 0600)", *_lines(document)])


@command.command()
@click.argument("which", metavar="[NAME|D]", required=False)
@click.option("--vkey", "vkeys", is_flag=True, help="Print C2SP verifier keys instead.")
@json_option
def show(*, which: str | None, vkeys: bool, form: Form) -> None:  # click hands flags over as bools
    """Show the public half of one key, of all keys of a run directory D, or of all your keys."""
    documents = [_document(path.name, path, PrivateKey.load(path)) for path in _paths(which)]
    of_run = which is not None and Path(which).is_dir() and locate(which) is None
    known = _known_vkeys(Path(which)) if which is not None and of_run else {}
    # A key at home may become a log's or signer's (0x01) or a witness's (0x04), never both: which
    # is its owner's choice, so both spellings are shown. In a run it is decided.
    algorithms = (ALG_ED25519,) if of_run else (ALG_ED25519, ALG_COSIGNATURE)
    for document in documents:
        name, public = document["name"], bytes.fromhex(document["public"])
        document["vkeys"] = known.get(document["public"]) or [
            VerifierKey(name, algorithm, public).to_text() for algorithm in algorithms
        ]
    if vkeys:
        lines = [text for document in documents for text in document["vkeys"]]
    else:
        lines = [
            line
            for document in documents
            for line in (f"{document['name']}  ({document['path']})", *_lines(document))
        ]
    emit(form, {"keys": documents}, lines)


@command.command()
@click.argument("key", metavar="KEY")
@_said
@json_option
def endorse(*, key: str, form: Form, **said: Any) -> None:
    """Let KEY (a key of yours, or a public half) sign for its owner from a log index on."""
    _write("endorse", key, None, form, **said)


@command.command()
@click.argument("key", metavar="KEY")
@click.argument("successor", metavar="NEW")
@_said
@json_option
def rotate(*, key: str, successor: str, form: Form, **said: Any) -> None:
    """End KEY at a log index, and let NEW sign in its place."""
    _write("rotate", key, successor, form, **said)


@command.command()
@click.argument("key", metavar="KEY")
@_said
@json_option
def revoke(*, key: str, form: Form, **said: Any) -> None:
    """End KEY at a log index; what it signed before stays, and so does evidence against it."""
    _write("revoke", key, None, form, **said)


@command.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, exists=True))
@click.argument("name", metavar="NAME")
@json_option
def accept(*, file: Path, name: str, form: Form) -> None:
    """Sign the event in FILE with your key NAME, which it lets sign."""
    from launch.key_events import accept_event, read_event

    envelope = accept_event(file, name)
    _tell(form, file, envelope, read_event(file)[1])


@command.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, exists=True))
@click.argument("log", metavar="D|URL")
@json_option
def submit(*, file: Path, log: str, form: Form) -> None:
    """Log the event in FILE: in the log of directory D, or in the one served at URL."""
    from launch.key_events import missing_signature, read_event
    from launch.status_log import StatusLog

    envelope, event = read_event(file)
    if missing_signature(envelope, event):
        raise CommandError(f"{file}: the key that begins has not signed; run 'anh key accept'")
    with StatusLog(log) as opened:
        index = opened.append(envelope, event.signers)
    emit(form, {"index": index}, [f"logged {event.action} at index {index} of {event.origin}"])


def _write(action: str, key: str, successor: str | None, form: Form, **said: Any) -> None:
    from attest.keys import Role
    from launch.key_events import Request, read_event, write_event

    request = Request(action, key, Role(said["role"]), said["origin"], said["index"], successor)
    envelope = write_event(request, said["owner"], said["out"])
    _tell(form, said["out"], envelope, read_event(said["out"])[1])


def _tell(form: Form, path: Path, envelope: "Envelope", event: "KeyEvent") -> None:
    from launch.key_events import missing_signature

    waits = missing_signature(envelope, event)
    lines = [f"{event.action} {event.key} from index {event.index} of {event.origin}"]
    lines += [f"wrote {path}; 'anh key accept {path} NAME' where the new key is"] if waits else []
    lines += [] if waits else [f"wrote {path}; 'anh key submit {path} D|URL' logs it"]
    emit(form, {"path": str(path), "complete": not waits}, lines)


def _document(name: str, path: Path, key: PrivateKey) -> dict[str, Any]:
    return {"name": name, "path": str(path), "public": key.public.hex(), "keyid": key.keyid}


def _lines(document: dict[str, Any]) -> list[str]:
    return table([("public", document["public"]), ("keyid", document["keyid"])])


def _paths(which: str | None) -> list[Path]:
    if which is None:
        paths = _files(key_folder())
        if not paths:
            raise CommandError(f"{key_folder()}: no keys yet; 'anh key new NAME' makes one")
        return paths
    found = locate(which)
    if found is not None:
        return [found]
    folder = Path(which)
    if folder.is_dir():
        paths = _files(folder / "keys" if (folder / "keys").is_dir() else folder)
        if not paths:
            raise CommandError(f"{which}: holds no keys; name a run directory or a key")
        return paths
    raise CommandError(f"{which}: no key of that name in {key_folder()}, no such file or directory")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*") if path.is_file())


def _known_vkeys(run: Path) -> dict[str, list[str]]:
    """Return the vkeys that the run's own policy gives its log and witness, by public key."""
    policy_file = run / "policy.toml"
    if not policy_file.is_file():
        return {}
    from attest.policy import load_policy

    policy = load_policy(policy_file)
    keys = [policy.log.key, *(witness.key for witness in policy.witnesses)]
    return {key.public.hex(): [key.to_text()] for key in keys}
