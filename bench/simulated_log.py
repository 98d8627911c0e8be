"""Large logs of simulated entries, written past admission, and a process that opens one.

The entries are records of good form whose signatures are made up: `anh log fsck` would check them,
opening a log does not. `simulated_log.py open DIRECTORY` prints what that costs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.envelope import PAYLOAD_TYPE, Envelope, record_hash
from attest.keys import PrivateKey, keyid
from attest.log.head_store import HeadStore
from attest.log.layout import Layout
from attest.log.register import LoggedRecord
from attest.log.sequencer import LocalLog, new_register
from attest.log.snapshot import SNAPSHOT_EVERY, Snapshot
from attest.log.sqlite_store import SqliteStore
from attest.log.store import Addition, Committed, StoredEntry
from attest.merkle import EMPTY_ROOT, Frontier, leaf_hash, tree_root
from attest.statements import Intent, encode_statement
from attest.tile_files import TileDirectory
from attest.tiles import TILE_WIDTH, TileBuilder, TileFile

MANY = 100_000_000
_AT_ONCE = 16_384


@dataclass
class ManyLeaves:
    """Give the tiles of a tree in which the same 256 leaves come again and again."""

    _levels: list[bytes] = field(default_factory=list[bytes])

    def __post_init__(self) -> None:
        hashes = [leaf_hash(b"leaf %d" % i) for i in range(TILE_WIDTH)]
        while len(self._levels) < 5:
            self._levels.append(b"".join(hashes))
            hashes = [tree_root(hashes)] * TILE_WIDTH

    def hash(self, index: int) -> bytes:
        """Return the hash of a leaf."""
        at = index % TILE_WIDTH * 32
        return self._levels[0][at : at + 32]

    def read(self, path: str) -> bytes:
        """Return a tile."""
        _, level, *_ = path.split("/")
        width = int(path.partition(".p/")[2] or TILE_WIDTH)
        return self._levels[int(level)][: width * 32]


def make_log(directory: Path, size: int, told: Callable[[str], None]) -> None:
    """Write a log of simulated entries with keys beside it, its head signed and published."""
    key, witness = PrivateKey.generate(), PrivateKey.generate()
    (directory / "keys").mkdir(parents=True)
    key.save(directory / "keys" / "log")
    witness.save(directory / "keys" / "witness")
    layout = Layout(directory / "log")
    with LocalLog.create(layout.root, key, witness, "log.example/large") as log:
        names = log.names
    store, tiles = SqliteStore(layout.store), TileDirectory(layout.root)
    frontier, builder, before = Frontier(), TileBuilder(), Committed(0, EMPTY_ROOT)
    register = new_register(names, [])
    for first in range(0, size, _AT_ONCE):
        entries = list(_entries(first, min(size, first + _AT_ONCE)))
        files: list[TileFile] = []
        for entry in entries:
            frontier.append(leaf_hash(entry.leaf))
            files += builder.add(entry.leaf)
        for file in files:
            _write(tiles, file)
        register.observe(LoggedRecord.read(Envelope.from_bytes(entries[0].leaf)))
        after = Committed(frontier.size, frontier.root())
        known = Snapshot(after, register).to_bytes() if not after.size % SNAPSHOT_EVERY else None
        store.append(Addition(before, after, entries, snapshot=known))
        before = after
        if not first // _AT_ONCE % 16:
            told(f"log: {after.size:,} of {size:,} entries are made")
    tiles.write(builder.open_files())
    heads = HeadStore(layout.head)
    head = Checkpoint(names.origin, before.size, before.root)
    heads.swap(heads.read(), sign_checkpoint(head, key).to_bytes())
    store.close()


def _write(tiles: TileDirectory, file: TileFile) -> None:
    """Write a file as it will lie there, unsynced: it is only to be read."""
    path = tiles.root / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.data)


def _entries(first: int, stop: int) -> Iterator[StoredEntry]:
    signer = keyid(bytes(32))
    nonce = hashlib.sha256(b"%d" % first).hexdigest()
    template = encode_statement(Intent("contract", nonce, "auditor", nonce))
    head = b'{"payload":"'
    tail = (
        f'","payloadType":"{PAYLOAD_TYPE}","signatures":[{{"keyid":"{signer}",'
        f'"sig":"{base64.b64encode(bytes(64)).decode()}"}}]}}'
    ).encode()
    mark = nonce.encode()
    for index in range(first, stop):
        own = hashlib.sha256(b"%d" % index).hexdigest().encode()
        payload = template.replace(mark, own)
        leaf = head + base64.b64encode(payload) + tail
        yield StoredEntry(index, record_hash(payload), leaf)


def main() -> None:
    """Open a log and ask it for proofs; print seconds, memory and waits as JSON."""
    directory = Path(sys.argv[2])
    began = time.perf_counter()
    with LocalLog.open(directory / "log") as log:
        seconds = time.perf_counter() - began
        size, choose = log.size, random.Random(7)
        waits: list[float] = []
        for _ in range(300):
            index = choose.randrange(size)
            asked = time.perf_counter()
            log.inclusion(index, size)
            waits.append(1e3 * (time.perf_counter() - asked))
    told = {
        "seconds": seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "proof_ms": statistics.median(waits),
        "proof_p95_ms": statistics.quantiles(waits, n=20)[-1],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
