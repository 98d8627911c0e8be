"""From committed entries to a published head: tiles, signature, witness, checkpoint, in this order.

A crash between two of them is made good by the next call; none of them can be taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attest.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from attest.cosignature import open_cosigned
from attest.durable_file import read_file, replace_file
from attest.errors import InputError, RefusedError
from attest.keys import PrivateKey
from attest.log.head_store import HeadStore
from attest.log.layout import Layout, LogNames
from attest.merkle import verify_consistency
from attest.note import MAX_NOTE_BYTES, Note
from attest.tiles import TileBuilder, TileDirectory, TileTree
from attest.witness import Witness


@dataclass(frozen=True, slots=True)
class Signers:
    """Hold the log's private key and the log's own witness."""

    log: PrivateKey
    witness: Witness


class Publisher:
    """Hold the newest signed head of a log and its published files.

    Raises:
        InputError: if there is no signed head.
        RefusedError: if the head is not signed by the log's key.
    """

    def __init__(self, layout: Layout, names: LogNames) -> None:
        self.tiles = TileDirectory(layout.root)
        self._layout = layout
        self._names = names
        self._heads = HeadStore(layout.head)
        self._note = b""
        self.head = self.refresh()
        self._tree = TileTree(self.tiles.read, 0)

    def refresh(self) -> Checkpoint:
        """Read the signed head again: another process may have signed since."""
        note = self._heads.read()
        if note != self._note:
            self.head = open_checkpoint(note, self._names.log)
            self._note = note
        return self.head

    def tree(self) -> TileTree:
        """Return the tree of the signed head, after checking that its tiles lead to the root."""
        if self._tree.size != self.head.size:
            tree = TileTree(self.tiles.read, self.head.size)
            if tree.root() != self.head.root:
                raise _tiles_differ(self.head.size)
            self._tree = tree
        return self._tree

    def write_tiles(self, builder: TileBuilder, leaves: Iterable[bytes]) -> TileBuilder:
        """Write the files that further leaves complete or leave open; return their builder.

        The given builder is left as it is: after a full disk the same leaves come again.
        """
        builder = builder.copy()
        for leaf in leaves:
            for file in builder.add(leaf):
                self.tiles.write(file)
        for file in builder.open_files():
            self.tiles.write(file)
        return builder

    def sign(self, new: Checkpoint, key: PrivateKey) -> None:
        """Sign a head whose tiles are written, if it extends the head signed before.

        Raises:
            RefusedError: (check `tile`, `consistency` or `head`) if it does not, by what the tiles
                on disk say, or if another process has signed meanwhile.
        """
        tree = TileTree(self.tiles.read, new.size)
        if tree.root() != new.root:
            raise _tiles_differ(new.size)
        old = self.head
        proof = tree.consistency_path(old.size, new.size)
        verify_consistency(old.size, new.size, proof, old.root, new.root)
        note = sign_checkpoint(new, key).to_bytes()
        self._heads.swap(self._note, note)
        self._note, self.head, self._tree = note, new, tree

    def publish(self, witness: Witness) -> bytes:
        """Have the signed head cosigned and put it where readers look; return it.

        Raises:
            RefusedError: if the witness does not cosign.
            EquivocationError: if the witness has seen another root for this size.
        """
        signed = Note.from_bytes(self._note)
        if self._layout.checkpoint.exists():
            published = self.published()
            if Note.from_bytes(published).text == signed.text:
                return published
        seen = witness.size(self.head.origin)
        if seen > self.head.size:
            raise RefusedError(
                f"log {self.head.origin} is at size {self.head.size}, its witness has cosigned "
                f"{seen}: the log was restored from an old copy",
                check="rollback",
            )
        proof = self.tree().consistency_path(seen, self.head.size)
        cosigned = signed.signed_also(witness.cosign(seen, proof, self._note)).to_bytes()
        replace_file(self._layout.checkpoint, cosigned)
        return cosigned

    def published(self) -> bytes:
        """Return the published checkpoint, with the log's line and its witness's.

        Raises:
            InputError: if there is none.
            RefusedError: if a line is missing or wrong.
        """
        data = read_file(self._layout.checkpoint, MAX_NOTE_BYTES)
        if not open_cosigned(data, self._names.log, [self._names.witness]).cosignatures:
            raise RefusedError(
                f"{self._layout.checkpoint}: the log's witness has not cosigned it; delete it, and "
                "the next checkpoint writes it anew",
                check="cosignature",
            )
        return data


def _tiles_differ(size: int) -> RefusedError:
    return RefusedError(
        f"log tiles on disk do not lead to the root of size {size}: a tile was altered",
        check="tile",
    )


def no_keys(origin: str) -> InputError:
    """Return the error of a log that was opened without its private keys."""
    return InputError(f"log {origin} was opened without its keys `log` and `witness`: cannot sign")
