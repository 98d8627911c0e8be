"""What a served log answers to readers: files, records, proofs, runs. It writes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from attest import canonical
from attest.assembly import assemble
from attest.consistency_file import ConsistencyFile
from attest.envelope import Envelope
from attest.errors import InputError
from attest.log.answer import BYTES, FOR_EVER, TEXT, Answer, json_answer, number
from attest.log.kept_heads import KeptHeads
from attest.log.publication import Publication
from attest.log.published_log import CHECKPOINT, PublishedLog
from attest.log.run_index import RunPlace
from attest.log.wire import LINES_TYPE
from attest.note import KeyName, Note
from attest.proof import encode_proof
from attest.rejections import reject
from attest.tlog_proof import TlogProof

INDEX_HEADER = "Anh-Index"
_TILE = re.compile(
    r"tile/([0-9]|[1-5][0-9]|6[0-3]|entries)/(x[0-9]{3}/){0,6}[0-9]{3}"
    r"(\.p/([1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?"
)
_HASH = re.compile(r"[0-9a-f]{64}")
_PAGE = 1024
_PAGE_BYTES = 4 << 20
_MOST_SIZES = 16


class StoredLog(Protocol):
    """Find acknowledged records by hash; `LocalLog` does."""

    def index_of(self, record_hash: bytes) -> int | None:
        """Return the index of a record, None if it is not in the log."""
        ...

    def entry(self, index: int) -> Envelope:
        """Return one acknowledged record."""
        ...


@dataclass(frozen=True, slots=True)
class _RunLog:
    """Read a published log for one run's proof, and find records by hash in the store."""

    published: PublishedLog
    log: StoredLog

    def entry(self, index: int) -> Envelope:
        return self.published.entry(index)

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        return self.published.entries(start, stop)

    def index_of(self, record_hash: bytes) -> int | None:
        return self.log.index_of(record_hash)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return self.published.inclusion(index, size)


class ReadingDesk:
    """Answer questions about a log; refusals are RejectedError."""

    def __init__(
        self,
        log: StoredLog,
        published: PublishedLog,
        publication: Publication,
        kept: KeptHeads,
        file: Callable[[str], bytes],
    ) -> None:
        self._log = log
        self._published = published
        self._publication = publication
        self._kept = kept
        self._file = file

    def checkpoint(self) -> Answer:
        """Give the newest published checkpoint."""
        return Answer(self._file(CHECKPOINT), TEXT, cache="no-cache")

    def old_checkpoint(self, size: int) -> Answer:
        """Give a published checkpoint of one size, if it is kept."""
        note = self._kept.find(size)
        if note is None:
            reject("absent", "a question", f"no checkpoint of size {size} is kept")
        return Answer(note, TEXT, cache="no-cache")

    def names(self) -> Answer:
        """Give the verifier keys of log and witness: to compare, never to trust unseen."""
        names = self._published.names
        value: canonical.JSON = {"log": names.log.to_text(), "witness": names.witness.to_text()}
        return json_answer(value)

    def tile(self, path: str) -> Answer:
        """Give a tile or an entry bundle; the same path has the same bytes for ever."""
        if not _TILE.fullmatch(path):
            reject("path", "a question", "no path of C2SP tlog-tiles")
        try:
            return Answer(self._file(path), BYTES, cache=FOR_EVER)
        except InputError:
            reject("absent", "a question", f"there is no {path} yet, or a fuller one replaced it")

    def record(self, hash_: str) -> Answer:
        """Give an acknowledged record's leaf; its index is in a header."""
        index = self._index(hash_)
        data = self._log.entry(index).to_bytes()
        return Answer(data, headers={INDEX_HEADER: str(index)})

    def record_proof(self, hash_: str) -> Answer:
        """Give the C2SP tlog-proof of a record under the newest published checkpoint."""
        index, seen = self._index(hash_), self._published.look()
        self._check_covered(index + 1)
        path = self._published.inclusion(index, seen.head.size)
        return Answer(TlogProof(index, path, seen.note).to_bytes(), TEXT)

    def inclusion(self, asked: Mapping[str, str]) -> Answer:
        """Give an inclusion path (`index`, `size`; by default under the newest checkpoint)."""
        index = number(asked, "index")
        size = number(asked, "size", default=self._published.size)
        if index >= size:
            reject("question", "a question", f"there is no entry {index} among {size}")
        self._check_covered(size)
        path = self._published.inclusion(index, size)
        value: canonical.JSON = {"index": index, "path": [p.hex() for p in path], "size": size}
        return json_answer(value)

    def consistency(self, asked: Mapping[str, str]) -> Answer:
        """Give a consistency file (`old`, `new`), as `anh verify --history` takes it."""
        old = number(asked, "old")
        new = number(asked, "new", default=self._published.size)
        if old > new:
            reject("question", "a question", f"{old} is above {new}")
        self._check_covered(new)
        path = self._published.consistency(old, new)
        return Answer(ConsistencyFile(self._published.origin, old, new, tuple(path)).to_bytes())

    def runs(self, asked: Mapping[str, str]) -> Answer:
        """List runs in the order of their genesis, a page behind `after` (`contract`, `state`)."""
        after = number(asked, "after", default=0) - (0 if "after" in asked else 1)
        limit = min(number(asked, "limit", default=100), _PAGE)
        state, contract = asked.get("state", "any"), asked.get("contract")
        if state not in ("any", "open", "ended"):
            reject("question", "a question", "state is open, ended or any")
        with self._publication.mutex:
            index = self._publication.index
            wanted = (
                _run_document(place)
                for place in index.after(after)
                if (contract is None or place.contract == contract)
                and (state == "any" or (place.final is not None) == (state == "ended"))
            )
            return json_answer({"runs": list(islice(wanted, limit)), "size": index.size})

    def run(self, run: str) -> Answer:
        """Say where a run stands."""
        with self._publication.mutex:
            return json_answer(_run_document(self._place(run)))

    def run_records(self, run: str, asked: Mapping[str, str]) -> Answer:
        """Give records about a run, rows included unless `rows=no`, a page from index `from` on.

        Each line is an object of `index` and `record`; a page without lines is behind the last.
        """
        start = number(asked, "from", default=0)
        with self._publication.mutex:
            self._place(run)
            index = self._publication.index
            found = iter(index.notes(run)) if asked.get("rows") == "no" else index.records(run)
            indices = list(islice((i for i in found if i >= start), _PAGE))
        lines: list[bytes] = []
        size = 0
        for i in indices:
            leaf = self._published.entry(i).to_bytes()
            size += len(leaf)
            if lines and size > _PAGE_BYTES:
                break
            lines.append(b'{"index":%d,"record":%s}\n' % (i, leaf))
        return Answer(b"".join(lines), LINES_TYPE)

    def run_proof(self, run: str, asked: Mapping[str, str]) -> Answer:
        """Give the run proof under the newest checkpoint.

        `sizes` are those that readers remember, `prefer` the keyids whose records go in first,
        `witnesses` the key hashes (8 hex digits) of those whose lines are wanted beside the log's.
        """
        seen = self._published.look()
        with self._publication.mutex:
            place = self._place(run)
            if place.final is None:
                reject("absent", "a question", f"run {run[:16]} has no final record in the log")
            indices = self._publication.index.notes(run)
        sizes, wanted = _numbers(asked.get("sizes", "")), asked.get("witnesses", "").split(",")

        def checkpoint_of(size: int) -> bytes | None:
            note = self._kept.find(size)
            return None if note is None else self._with_lines(note, wanted)

        proof = assemble(
            _RunLog(self._published, self._log),
            run,
            self._with_lines(seen.note, wanted),
            sizes=sizes,
            preferred=frozenset(asked.get("prefer", "").split(",")),
            among=((i, self._published.entry(i)) for i in indices if i < seen.head.size),
            checkpoint_of=checkpoint_of,
        )
        return Answer(encode_proof(proof))

    def _with_lines(self, note: bytes, wanted: Collection[str]) -> bytes:
        """Leave out the lines that a reader does not ask for: it would refuse unknown ones."""
        names, opened = self._published.names, Note.from_bytes(note)
        own = {KeyName.of(names.log), KeyName.of(names.witness)}
        signers = {line.signer for line in opened.signatures}
        asked = {signer for signer in signers if signer.key_hash.hex() in wanted}
        return opened.signed_only(own | asked).to_bytes()

    def _place(self, run: str) -> RunPlace:
        place = self._publication.index.runs.get(run)
        if place is None:
            reject("absent", "a question", f"no published genesis of run {run[:16]}")
        return place

    def _index(self, hash_: str) -> int:
        if not _HASH.fullmatch(hash_):
            reject("question", "a question", "a record hash is 64 hex digits")
        index = self._log.index_of(bytes.fromhex(hash_))
        if index is None:
            reject("absent", "a question", f"there is no record {hash_[:16]}")
        return index

    def _check_covered(self, size: int) -> None:
        covered = self._published.look().head.size
        if size > covered:
            reject("not-yet", "a question", f"it covers {covered}")


def _run_document(place: RunPlace) -> canonical.JSON:
    return {
        "attempts": len(place.attempts),
        "conflicts": place.conflicts,
        "contract": place.contract,
        "final": place.final,
        "genesis": place.genesis,
        "rows": place.rows,
        "run": place.run,
        "state": "open" if place.final is None else "ended",
    }


def _numbers(text: str) -> frozenset[int]:
    parts = [part for part in text.split(",") if part]
    if len(parts) > _MOST_SIZES:
        reject("question", "a question", f"at most {_MOST_SIZES} sizes")
    return frozenset(number({"sizes": part}, "sizes") for part in parts)
