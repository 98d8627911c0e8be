"""What `anh inspect` says about one file, and how it writes values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launch.errors import CommandError


@dataclass(frozen=True, slots=True)
class Description:
    """What a file is, in one phrase, and its facts by name, in reading order."""

    kind: str
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str] = field(default=())


def unknown(path: Path) -> CommandError:
    """Return the error for a file that is none of ours."""
    return CommandError(f"{path}: not a file that anh writes; 'anh inspect --help' lists those")


def readable(text: str) -> str:
    """Add the decimal value to a hexadecimal float; leave other text as it is."""
    if text.startswith(("0x", "-0x")) and "p" in text:
        return f"{float.fromhex(text):.6g}  ({text})"
    return text
