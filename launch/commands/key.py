"""`anh key`: make Ed25519 keys and show their public halves."""

from pathlib import Path
from typing import Any

import click

from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, VerifierKey
from launch.errors import CommandError
from launch.key_home import key_folder, key_path, locate, make_key
from launch.output import Form, emit, json_option, table


@click.group(name="key")
def command() -> None:
    """Make and show Ed25519 keys.

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
