"""What an auditor keeps to himself, beside his keys: nonces before they are revealed, and salts.

A nonce that the trainer can read before the final record lets him foresee the sample, so nothing of
this ever lies in a run directory. The folder is `audits` in $ANH_HOME or ~/.config/anh.
"""

import re
from pathlib import Path

from attest.durable_file import make_directory, read_file, replace_file
from attest.sample import NONCE_BYTES
from launch.errors import CommandError
from launch.key_home import key_folder

_MAX_BYTES = 4096
_NONCE = re.compile(r"[0-9a-f]{64}")


def audits_folder() -> Path:
    """Return the folder of nonces and salts; it need not exist yet."""
    return key_folder().parent / "audits"


def keep_nonce(intent: str, nonce: bytes) -> Path:
    """Keep the nonce of an intent (its record hash, hex) durably, readable by its owner alone."""
    return _keep(_nonce_path(intent), nonce.hex().encode() + b"\n")


def find_nonce(intent: str) -> bytes | None:
    """Return the nonce of an intent, or None where it is not kept here."""
    path = _nonce_path(intent)
    if not path.is_file():
        return None
    text = read_file(path, _MAX_BYTES).decode("ascii", errors="replace").strip()
    if not _NONCE.fullmatch(text):
        raise CommandError(f"{path}: is no nonce of {NONCE_BYTES} bytes in hex; restore it")
    return bytes.fromhex(text)


def keep_salts(receipt: str, data: bytes) -> Path:
    """Keep what opens a receipt's own gradient roots (its record hash, hex)."""
    return _keep(audits_folder() / f"{receipt}.gradients.json", data)


def _keep(path: Path, data: bytes) -> Path:
    make_directory(path.parent)
    path.parent.chmod(0o700)
    replace_file(path, data)
    path.chmod(0o600)
    return path


def _nonce_path(intent: str) -> Path:
    return audits_folder() / f"{intent}.nonce"
