"""From committed entries to a published head: tiles, signature, witness, checkpoint, in this order.

A crash between two of them is made good by the next call; none of them can be taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attest.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from attest.cosignature import open_cosigned
from attest.errors import InputError, RefusedError
from attest.keys import PrivateKey
from attest.log.head_store import Heads
from attest.log.http_witness import Witnesses
from attest.log.layout import LogNames
from attest.merkle import verify_consistency
from attest.note import Note
from attest.tile_files import Tiles
from attest.tiles import CHECKPOINT_PATH, TileBuilder, TileFile, TileTree
from attest.witness import Witness

# Files that are written at once: enough that their syncs share the disk's, and no more in memory.
_FILES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Signers:
    """Hold the log's private key, the log's own witness, and those elsewhere that are asked too."""

    log: PrivateKey
    witness: Witness
    others: Witnesses = Witnesses()


@dataclass(frozen=True, slots=True)
class _Signed:
    """Hold a signed head as it is stored, and as it reads."""

    note: bytes
    head: Checkpoint


class Publisher:
    """Hold the newest signed head of a log and its published files.

    Reading is safe from every thread; who signs or publishes holds the log's turn to publish.

    Raises:
        InputError: if there is no signed head.
        RefusedError: if the head is not signed by the log's key.
    """

    def __init__(self, tiles: Tiles, heads: Heads, names: LogNames) -> None:
        self.tiles = tiles
        self._names = names
        self._heads = heads
        note = heads.read()
        self._signed = _Signed(note, open_checkpoint(note, names.log))
        self._tree = TileTree(tiles.read, 0)

    def close(self) -> None:
        """Close what is open to reach the head."""
        self._heads.close()

    @property
    def head(self) -> Checkpoint:
        """Return the newest signed head as it was last read or signed."""
        return self._signed.head

    def refresh(self) -> Checkpoint:
        """Read the signed head again: another process may have signed since."""
        note = self._heads.read()
        if note != self._signed.note:
            self._signed = _Signed(note, open_checkpoint(note, self._names.log))
        return self.head

    def tree(self) -> TileTree:
        """Return the tree of the signed head, after checking that its tiles lead to the root."""
        head, tree = self.head, self._tree
        if tree.size != head.size:
            tree = TileTree(self.tiles.read, head.size)
            if tree.root() != head.root:
                raise _tiles_differ(head.size)
            self._tree = tree
        return tree

    def write_tiles(self, builder: TileBuilder, leaves: Iterable[bytes]) -> TileBuilder:
        """Write the files that further leaves complete or leave open; return their builder.

        The given builder is left as it is: after a full disk the same leaves come again.
        """
        builder = builder.copy()
        files: list[TileFile] = []
        for leaf in leaves:
            files += builder.add(leaf)
            if len(files) >= _FILES_AT_ONCE:
                self.tiles.write(files)
                files = []
        self.tiles.write([*files, *builder.open_files()])
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
        old = self._signed
        proof = tree.consistency_path(old.head.size, new.size)
        verify_consistency(old.head.size, new.size, proof, old.head.root, new.root)
        note = sign_checkpoint(new, key).to_bytes()
        self._heads.swap(old.note, note)
        self._signed, self._tree = _Signed(note, new), tree

    def publish(self, signers: Signers) -> bytes:
        """Have the signed head cosigned and put it where readers look; return it.

        A head that is there already is put there again only with lines that it lacked.

        Raises:
            RefusedError: if the log's own witness does not cosign.
            EquivocationError: if that has seen another root for this size.
        """
        old = self._published_note()
        if old is None or old.text != Note.from_bytes(self._signed.note).text:
            old, new = None, self._cosigned(signers.witness)
        else:
            new = old
        asked = signers.others.lacking(new)
        head, log = self.head, self._names.log
        for line in signers.others.cosign(asked, self._signed.note, head, log, self._path_from):
            new = new.signed_also(line)
        if new != old:
            self.tiles.publish(new.to_bytes())
        return new.to_bytes()

    def lacks_lines(self, others: Witnesses) -> bool:
        """Say whether the published head lacks the line of a witness that may be asked now."""
        published = self._published_note()
        return published is not None and bool(others.lacking(published))

    def _published_note(self) -> Note | None:
        if not self.tiles.has(CHECKPOINT_PATH):
            return None
        return Note.from_bytes(self.published())

    def _path_from(self, old: int) -> list[bytes]:
        return self.tree().consistency_path(old, self.head.size)

    def _cosigned(self, witness: Witness) -> Note:
        """Return the signed head with the line of the log's own witness."""
        signed, head = Note.from_bytes(self._signed.note), self.head
        seen = witness.size(head.origin)
        if seen > head.size:
            raise RefusedError(
                f"log {head.origin} is at size {head.size}, its witness has cosigned "
                f"{seen}: the log was restored from an old copy",
                check="rollback",
            )
        line = witness.cosign(seen, self._path_from(seen), self._signed.note)
        return signed.signed_also(line)

    def published(self) -> bytes:
        """Return the published checkpoint, with the log's line and its witness's.

        Raises:
            InputError: if there is none.
            RefusedError: if a line is missing or wrong.
        """
        data = self.tiles.read(CHECKPOINT_PATH)
        if not open_cosigned(data, self._names.log, [self._names.witness]).cosignatures:
            raise RefusedError(
                f"log {self._names.origin}: its witness has not cosigned the published checkpoint; "
                "delete that, and the next checkpoint writes it anew",
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
