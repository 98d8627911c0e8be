"""C2SP tlog-proof (draft): one leaf's index and path under a cosigned checkpoint, as text.

    c2sp.org/tlog-proof@v1
    extra BASE64                 # may be absent; here the leaf itself, so that one file is enough
    index 43
    BASE64                       # the inclusion path, from the leaf's sibling upwards

    origin
    ...                          # the checkpoint with its signature lines

Nothing signs the extra line: what it holds counts only once it has been hashed into the root.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from attest.checkpoint import Checkpoint
from attest.errors import FormatError
from attest.merkle import HASH_BYTES, MAX_SIZE, leaf_hash, verify_inclusion
from attest.note import MAX_NOTE_BYTES, Note, decode_base64

MEDIA_TYPE = "text/plain; charset=utf-8"
_MAGIC = "c2sp.org/tlog-proof@v1"
# What a file of this kind begins with.
HEAD = f"{_MAGIC}\n".encode()
_EXTRA = "extra "
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")
_MAX_PATH = 63


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Hold a leaf's index, its inclusion path, and the note of the checkpoint it leads to.

    `extra` is the file's own line of opaque bytes, None if it has none.
    """

    index: int
    path: Sequence[bytes]
    note: bytes
    extra: bytes | None = None

    def to_bytes(self) -> bytes:
        """Write the proof."""
        hashes = [base64.b64encode(value).decode() for value in self.path]
        extra = [] if self.extra is None else [_EXTRA + base64.b64encode(self.extra).decode()]
        head = "\n".join([_MAGIC, *extra, f"index {self.index}", *hashes, "", ""])
        return head.encode() + self.note

    @classmethod
    def from_bytes(cls, data: bytes) -> TlogProof:
        """Read a proof in its one spelling.

        Raises:
            FormatError: for anything else.
        """
        head, separator, note = data.partition(b"\n\n")
        if not separator or len(data) > MAX_NOTE_BYTES or not head.isascii():
            raise FormatError("not a tlog proof", code="tlog proof")
        magic, *lines = head.decode("ascii").split("\n")
        extra = None
        if lines and lines[0].startswith(_EXTRA):
            extra = decode_base64(lines.pop(0).removeprefix(_EXTRA))
        index = _INDEX.fullmatch(lines[0]) if lines else None
        if magic != _MAGIC or index is None or len(lines) > _MAX_PATH + 1:
            raise FormatError("not a tlog proof of version 1", code="tlog proof")
        path = tuple(decode_base64(line) for line in lines[1:])
        if int(index[1]) >= MAX_SIZE or any(len(value) != HASH_BYTES for value in path):
            raise FormatError("tlog proof: index or path is out of range", code="tlog proof")
        return cls(int(index[1]), path, note, extra)

    def verify(self, leaf: bytes) -> Checkpoint:
        """Check that the leaf's bytes lead to the checkpoint, and return that one.

        Who signed the checkpoint is for the caller to check.

        Raises:
            FormatError: if the note is no checkpoint.
            RefusedError: if the path does not lead to its root.
        """
        head = Checkpoint.from_text(Note.from_bytes(self.note).text)
        verify_inclusion(self.index, head.size, leaf_hash(leaf), self.path, head.root)
        return head
