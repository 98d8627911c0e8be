"""A file that ties two sizes of a log together: `anh verify --history FILE`.

{"new": 20, "old": 12, "origin": "log.example/runs", "path": ["base64", ...], "version": 1}
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attest import canonical
from attest.canonical import JSON
from attest.durable_file import read_file
from attest.errors import FormatError, RefusedError

__all__ = ["ConsistencyFile"]

# 63 hashes are the longest path there is.
_MAX_BYTES = 8192
_NAMES = {"new", "old", "origin", "path", "version"}


@dataclass(frozen=True, slots=True)
class ConsistencyFile:
    """Hold an RFC 6962 consistency path between two sizes of a log; nothing of it is checked."""

    origin: str
    old: int
    new: int
    path: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Write the file."""
        path: list[JSON] = [base64.b64encode(node).decode() for node in self.path]
        return canonical.encode(
            {"new": self.new, "old": self.old, "origin": self.origin, "path": path, "version": 1}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "ConsistencyFile":
        """Read the file.

        Raises:
            FormatError: for any other bytes.
        """
        value = canonical.decode(data, max_bytes=_MAX_BYTES)
        if not isinstance(value, dict) or value.keys() != _NAMES or value["version"] != 1:
            raise FormatError("not a consistency file of version 1", code="consistency file")
        origin, old, new, path = (value[name] for name in ("origin", "old", "new", "path"))
        if not (isinstance(origin, str) and type(old) is int and type(new) is int):
            raise FormatError("consistency file: a field has a wrong type", code="type")
        if not isinstance(path, list):
            raise FormatError("consistency file: path is no list", code="type")
        return cls(origin, old, new, tuple(_unbase64(node) for node in path))

    @classmethod
    def load(cls, path: Path) -> "ConsistencyFile":
        """Read the file at a path.

        Raises:
            InputError: if it cannot be read.
            FormatError: if it is no consistency file.
        """
        return cls.from_bytes(read_file(path, _MAX_BYTES))

    def consistency(self, old: int, new: int) -> Sequence[bytes]:
        """Return the path between two sizes, if it is the file's.

        Raises:
            RefusedError: (check `history`) if it is another's.
        """
        if (old, new) != (self.old, self.new):
            raise RefusedError(f"the file goes from size {self.old} to {self.new}", check="history")
        return self.path


def _unbase64(text: JSON) -> bytes:
    try:
        data = base64.b64decode(text if isinstance(text, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("consistency file: broken base64", code="base64") from None
    return data
