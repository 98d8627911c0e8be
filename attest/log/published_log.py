"""A log as its readers see it: checkpoint, tiles and entry bundles, over a disk or a network.

Nothing is believed that does not lead to the root of a checkpoint which the log has signed and its
witness cosigned; so it does not matter who hands the files over.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from attest.checkpoint import Checkpoint
from attest.cosignature import open_cosigned
from attest.envelope import Envelope
from attest.equivocation import check_evidence, encode_evidence
from attest.errors import AttestError, EquivocationError, FormatError, InputError, RefusedError
from attest.keys import VerifierKey
from attest.log.layout import LogNames
from attest.merkle import (
    leaf_hash,
    subtree_consistency_ranges,
    tree_root,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
)
from attest.multiproof import nodes_from_paths
from attest.proof import ProofRecord, RunProof
from attest.tiles import TILE_WIDTH, ReadFile, TileTree, bundle_path, decode_bundle

CHECKPOINT = "checkpoint"
# Bundles of 256 records of about a kilobyte: some tens of megabytes.
_KEPT_BUNDLES = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold a published checkpoint whose signatures hold: its note, and what the log signed."""

    note: bytes
    head: Checkpoint


class PublishedLog:
    """Read a log whose keys are known; `read` gives its files, `known` is a checkpoint of before.

    A checkpoint that does not extend the one seen before is refused. Methods raise InputError where
    a file cannot be had, FormatError or RefusedError where it is not what the log signed, and
    EquivocationError, with evidence for anyone, where the log signed two histories.
    """

    def __init__(self, read: ReadFile, names: LogNames, *, known: bytes = b"") -> None:
        self._read = read
        self._names = names
        self._mutex = threading.Lock()
        self._seen = self._judged(known, None) if known else None
        self._bundles: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()

    @property
    def names(self) -> LogNames:
        """Return the log's and its witness's verifier keys."""
        return self._names

    @property
    def origin(self) -> str:
        """Return the origin line of the log's checkpoints."""
        return self._names.origin

    @property
    def size(self) -> int:
        """Return how many records the newest published checkpoint covers."""
        return self.look().head.size

    def published(self) -> bytes:
        """Return the newest published checkpoint."""
        return self.look().note

    def look(self) -> Seen:
        """Read the newest published checkpoint, and hold it against the one before."""
        note = self._read(CHECKPOINT)
        with self._mutex:
            if self._seen is None or self._seen.note != note:
                self._seen = self._judged(note, self._seen)
            return self._seen

    def hold_against(self, note: bytes, witness: VerifierKey) -> Checkpoint:
        """Compare a head that a witness has cosigned with what this log shows; return that head.

        Of a head that is larger than what is published nothing follows yet.

        Raises:
            EquivocationError: if the log has signed both, and they are two histories.
            RefusedError: if the note is not the log's, or not cosigned by that witness.
        """
        cosigned = open_cosigned(note, self._names.log, [witness])
        if not cosigned.cosignatures:
            raise RefusedError(f"{witness.name} has not cosigned its head", check="cosignature")
        there, seen = cosigned.checkpoint, self.look()
        if there.size <= seen.head.size:
            self._check_extends(Seen(note, there), seen)
        return there

    def leaves(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the leaves `start` to `stop` (excluded).

        Raises:
            InputError: if no published checkpoint covers them.
        """
        seen = self._covering(stop)
        if not 0 <= start <= stop:
            raise InputError(f"log {self.origin} has no entries {start} to {stop}")
        while start < stop:
            number, first = divmod(start, TILE_WIDTH)
            end = min(stop, (number + 1) * TILE_WIDTH)
            yield from self._bundle(number, seen.head)[first : first + end - start]
            start = end

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        """Yield the records `start` to `stop` (excluded)."""
        for leaf in self.leaves(start, stop):
            yield Envelope.from_bytes(leaf)

    def entry(self, index: int) -> Envelope:
        """Return one record."""
        return next(self.entries(index, index + 1))

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion path of an entry in the first `size` entries."""
        head = self._covering(size).head
        tree = TileTree(self._read, head.size)
        path = tree.inclusion_path(index, size)
        if size == head.size:
            verify_inclusion(index, size, tree.leaf_hash(index), path, head.root)
        return path

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the first `old` entries are a prefix of the first `new`."""
        return TileTree(self._read, self._covering(new).head.size).consistency_path(old, new)

    def _covering(self, size: int) -> Seen:
        seen = self._seen
        if seen is None or seen.head.size < size:
            seen = self.look()
        if seen.head.size < size:
            raise InputError(f"log {self.origin}: no published checkpoint covers {size} entries")
        return seen

    def _judged(self, note: bytes, before: Seen | None) -> Seen:
        cosigned = open_cosigned(note, self._names.log, [self._names.witness])
        head = cosigned.checkpoint
        if not cosigned.cosignatures:
            raise RefusedError(
                f"checkpoint of log {self.origin} is not cosigned by its witness",
                check="cosignature",
            )
        if before is None or before.head == head:
            return Seen(note, head)
        if before.head.size > head.size:
            return before  # an older file of a cache; what was signed before stays signed
        seen = Seen(note, head)
        self._check_extends(before, seen)
        return seen

    def _check_extends(self, before: Seen, seen: Seen) -> None:
        old, head = before.head, seen.head
        try:
            path = TileTree(self._read, head.size).consistency_path(old.size, head.size)
            verify_consistency(old.size, head.size, path, old.root, head.root)
        except RefusedError:
            self._accuse(before, seen)
            raise  # the files are wrong, which says nothing about what was signed

    def _accuse(self, first: Seen, second: Seen) -> None:
        """Raise what two heads show, where they and the published files show it to anyone."""
        proof = None
        if first.head.size < second.head.size:
            tree = TileTree(self._read, second.head.size)
            (leaf, *_) = decode_bundle(self._some(0, min(TILE_WIDTH, second.head.size)))
            sizes = {first.head.size} - {0}
            nodes = nodes_from_paths(second.head.size, [0], sizes, tree.inclusion_path)
            records = (ProofRecord.read(0, Envelope.from_bytes(leaf)),)
            proof = RunProof(second.note, None, records, tuple(sizes), tuple(nodes))
        evidence = encode_evidence(first.note, second.note, proof)
        try:
            check_evidence(evidence, self._names.log)
        except AttestError:
            return
        raise EquivocationError(
            f"log {self.origin} signed two histories, at sizes {first.head.size} and "
            f"{second.head.size}",
            evidence=evidence,
        )

    def _bundle(self, number: int, head: Checkpoint) -> list[bytes]:
        width = min(TILE_WIDTH, head.size - number * TILE_WIDTH)
        with self._mutex:
            known = self._bundles.get((number, width))
        if known is None:
            known = self._fetched(number, width, head)
            with self._mutex:
                self._bundles[number, width] = known
                while len(self._bundles) > _KEPT_BUNDLES:
                    self._bundles.popitem(last=False)
        return known

    def _fetched(self, number: int, width: int, head: Checkpoint) -> list[bytes]:
        leaves = decode_bundle(self._some(number, width))[:width]
        if len(leaves) != width:
            raise FormatError(
                f"{bundle_path(number, width)} holds {len(leaves)} entries", code="bundle"
            )
        start, end = number * TILE_WIDTH, number * TILE_WIDTH + width
        tree = TileTree(self._read, head.size)
        path = [tree.range_root(r) for r in subtree_consistency_ranges(start, end, head.size)]
        root = tree_root([leaf_hash(leaf) for leaf in leaves])
        verify_subtree_consistency(start, end, head.size, path, root, head.root)
        return leaves

    def _some(self, number: int, width: int) -> bytes:
        try:
            return self._read(bundle_path(number, width))
        except InputError:
            # A log that has grown may have dropped its partial bundle for the full one.
            return self._read(bundle_path(number))
