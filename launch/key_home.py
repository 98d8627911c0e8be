"""Where a person's own keys lie: `$ANH_HOME/keys` or `~/.config/anh/keys`, apart from any run."""

import os
import re
from pathlib import Path

from attest.keys import PrivateKey
from launch.errors import CommandError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def key_folder() -> Path:
    """Return the folder of the person's keys; it need not exist yet."""
    home = os.environ.get("ANH_HOME")
    return (Path(home) if home else Path.home() / ".config" / "anh") / "keys"


def key_path(name: str) -> Path:
    """Return where the key called `name` lies; raises CommandError for an unusable name."""
    if not _NAME.fullmatch(name):
        raise CommandError(
            f"key name {name!r}: use up to 64 letters, digits, '.', '_' and '-', a letter or digit "
            "first"
        )
    return key_folder() / name


def make_key(name: str) -> PrivateKey:
    """Make and keep a new key; raises CommandError where the name is taken."""
    path = key_path(name)
    if os.path.lexists(path):
        raise CommandError(f"key {path}: exists; choose another name, keys are never replaced")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = PrivateKey.generate()
    key.save(path, comment=name)
    return key


def find_key(text: str) -> PrivateKey:
    """Load the key that `text` names: one in the key home, or the path of a key file."""
    path = locate(text)
    if path is None:
        raise CommandError(
            f"no key {text!r} in {key_folder()} and no such file; 'anh key new {text}' makes one"
        )
    return PrivateKey.load(path)


def locate(text: str) -> Path | None:
    """Return the file that `text` names, a name in the key home first, or None."""
    if _NAME.fullmatch(text) and (key_folder() / text).is_file():
        return key_folder() / text
    return Path(text) if Path(text).is_file() else None
