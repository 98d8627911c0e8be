"""A log in memory, which can be told wrong, and the proofs of what is in it."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from run_cast import NOW, ORIGIN, digest, key

from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.cosignature import cosign
from attest.envelope import Envelope, sign
from attest.merkle import inclusion_ranges, leaf_hash, node_hash, subtree_consistency_ranges
from attest.multiproof import nodes_from_paths
from attest.note import Note
from attest.proof import ProofRecord, RunProof
from attest.statements import Row, Scalars, Statement, Step, encode_statement

_FILLER = sign(
    encode_statement(
        Step(
            digest("attempt"),
            Row(
                run=digest("run"),
                step=1,
                prev=digest("run"),
                gradient_root=digest("g"),
                state_root=digest("s"),
                batch_root=digest("b"),
                scalars=Scalars("0x1.0000000000000p+0", 1, "0x1.0000000000000p+6"),
                loss="0x1.0000000000000p-1",
                bound=None,
            ),
        )
    ),
    [key("worker-1")],
)
FILLER = _FILLER.to_bytes()


class MemoryLog:
    """Hold entries; `records` maps their names to record hashes, `at` to indices."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self.leaf_hashes: list[bytes] = []
        self.statements: dict[int, Statement] = {}
        self.indices: dict[bytes, int] = {}
        self.records: dict[str, str] = {}
        self.at: dict[str, int] = {}
        self._ranges: dict[tuple[int, int], bytes] = {}

    def entry(self, index: int) -> Envelope:
        return Envelope.from_bytes(self.leaves[index])

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        return (
            _FILLER if leaf is FILLER else Envelope.from_bytes(leaf)
            for leaf in self.leaves[start:stop]
        )

    def index_of(self, record_hash: bytes) -> int | None:
        return self.indices.get(record_hash)

    def inclusion(self, index: int, size: int) -> Sequence[bytes]:
        return [self._root(r.start, r.end) for r in inclusion_ranges(index, size)]

    def consistency(self, old: int, new: int) -> Sequence[bytes]:
        return [self._root(r.start, r.end) for r in subtree_consistency_ranges(0, old, new)]

    def root(self, size: int | None = None) -> bytes:
        return self._root(0, len(self.leaves) if size is None else size)

    def _root(self, start: int, end: int) -> bytes:
        known = self._ranges.get((start, end))
        if known is None:
            if end - start == 1:
                return self.leaf_hashes[start]
            middle = start + (1 << ((end - start - 1).bit_length() - 1))
            known = node_hash(self._root(start, middle), self._root(middle, end))
            self._ranges[start, end] = known
        return known

    def add(self, name: str, statement: Statement, *signers: str) -> str:
        """Sign and append a statement; returns its record hash."""
        envelope = sign(encode_statement(statement), [key(s) for s in signers])
        return self.add_envelope(name, envelope, statement)

    def add_envelope(self, name: str, envelope: Envelope, statement: Statement) -> str:
        index = len(self.leaves)
        self.leaves.append(envelope.to_bytes())
        self.leaf_hashes.append(leaf_hash(self.leaves[-1]))
        self.statements[index] = statement
        self.indices.setdefault(envelope.record_hash(), index)
        self.records[name] = envelope.record_hash().hex()
        self.at[name] = index
        return self.records[name]

    def replace_entry(self, index: int, envelope: Envelope) -> None:
        """Put another envelope in an entry's place, as if it had always been there."""
        self.leaves[index] = envelope.to_bytes()
        self.leaf_hashes[index] = leaf_hash(self.leaves[index])
        self._ranges.clear()

    def drop_last(self) -> None:
        """Take the last entry back."""
        index = len(self.leaves) - 1
        self.leaves.pop()
        self.leaf_hashes.pop()
        self.statements.pop(index)
        self._ranges.clear()
        self.at = {name: at for name, at in self.at.items() if at != index}
        self.indices = {record: at for record, at in self.indices.items() if at != index}

    def fill(self, count: int) -> None:
        """Append entries that stand for steps nobody looks at here."""
        start = len(self.leaves)
        self.leaves += [FILLER] * count
        self.leaf_hashes += [
            hashlib.sha256(i.to_bytes(8, "big")).digest() for i in range(start, start + count)
        ]

    def checkpoint(
        self,
        *,
        size: int | None = None,
        root: bytes | None = None,
        origin: str = ORIGIN,
        witnesses: Sequence[str] = ("wit-a", "wit-b"),
        time: int = NOW - 60,
    ) -> bytes:
        size = len(self.leaves) if size is None else size
        note = sign_checkpoint(Checkpoint(origin, size, root or self.root(size)), key("log"))
        for i, witness in enumerate(witnesses):
            note = note.signed_also(cosign(note.text, f"{witness}.example", key(witness), time + i))
        return note.to_bytes()

    def proof_of(
        self,
        indices: Iterable[int],
        *,
        sizes: Iterable[int] = (),
        checkpoint: bytes | None = None,
        status_checkpoint: bytes | None = None,
    ) -> RunProof:
        """Return the proof of just these entries, whether or not they make sense together."""
        checkpoint = checkpoint or self.checkpoint()
        size = Checkpoint.from_text(Note.from_bytes(checkpoint).text).size
        indices, sizes = sorted(set(indices)), sorted(set(sizes))
        return RunProof(
            checkpoint=checkpoint,
            status_checkpoint=status_checkpoint,
            records=tuple(ProofRecord.read(i, self.entry(i)) for i in indices),
            sizes=tuple(sizes),
            nodes=tuple(nodes_from_paths(size, indices, sizes, self.inclusion)),
        )
