"""A run proof put together from a log: every record the client will ask for, none besides.

Anybody may log audits, properties, intents and conflicts about a run, and a proof has a size cap.
Where they do not all fit, those by preferred keys go in first and the last ones are left out: the
status beside them lists all, so the client sees that some are missing (`omissions`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from attest.checkpoint import Checkpoint
from attest.envelope import Envelope
from attest.errors import InputError
from attest.lineage import MAX_LISTED_ATTEMPTS
from attest.multiproof import nodes_from_paths
from attest.note import Note
from attest.proof import MAX_PROOF_BYTES, ProofRecord, RunProof, encode_proof
from attest.run_of import run_of
from attest.statements import (
    Attempt,
    Audit,
    Conflict,
    ContractStatement,
    Final,
    Genesis,
    Intent,
    Property,
    Segment,
    Status,
    Step,
    predicate_type,
)

__all__ = ["LogReader", "assemble"]

# Most of a log is steps, and steps alone would take the time: told by their type, not read. It is
# the last such field of a payload: an auditor may write the same words into a fact.
_TYPE = b'"predicateType":'
_BULK = tuple(_TYPE + f'"{predicate_type(kind)}"'.encode() for kind in (Step, Segment))


class LogReader(Protocol):
    """Read a log's entries and tree."""

    def entry(self, index: int) -> Envelope:
        """Return the record at an index."""
        ...

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        """Yield the records `start` to `stop` (excluded)."""
        ...

    def index_of(self, record_hash: bytes) -> int | None:
        """Return the index of a record, None if the log does not hold it."""
        ...

    def inclusion(self, index: int, size: int) -> Sequence[bytes]:
        """Return a leaf's RFC 6962 inclusion path in the tree of the first `size` leaves."""
        ...


@dataclass(slots=True)
class _Found:
    """Collect a log's records that may concern a run; the run is known once genesis is read."""

    contracts: list[ProofRecord] = field(default_factory=list[ProofRecord])
    genesis: ProofRecord | None = None
    records: list[ProofRecord] = field(default_factory=list[ProofRecord])
    statuses: list[ProofRecord] = field(default_factory=list[ProofRecord])


def assemble(
    log: LogReader,
    run: str,
    checkpoint: bytes,
    *,
    status_checkpoint: bytes | None = None,
    sizes: Collection[int] = (),
    preferred: Collection[str] = (),
    among: Iterable[tuple[int, Envelope]] | None = None,
    checkpoint_of: Callable[[int], bytes | None] = lambda size: None,
) -> RunProof:
    """Assemble the proof of a run (its id, 64 hex digits) under a cosigned checkpoint.

    The newest status that saw all other records goes in; without one the client will say that
    omissions were not checked. `status_checkpoint` is the cosigned checkpoint at the status's size,
    needed if other records than the status itself were logged after it. `sizes` are those of
    checkpoints that readers remember. `preferred` are the keyids whose records matter most to the
    readers, should not all fit, and the first to be taken for the contract's author. `among` are
    the records to choose from, by index, where somebody knows them; else the whole log is read.
    `checkpoint_of` gives the cosigned checkpoint of a size, where somebody keeps it: for a status.

    Raises:
        InputError: if the log does not hold the run's contract, genesis and final record.
        FormatError: if an entry or a checkpoint is malformed.
    """
    size = Checkpoint.from_text(Note.from_bytes(checkpoint).text).size
    found = _scan(enumerate(log.entries(0, size)) if among is None else among, run)
    records, others = _own(log, found, run, preferred)
    status = _newest(found.statuses, [*records, *others])
    shown = {s for s in sizes if 0 < s < size}
    if status is None:
        status_checkpoint = None
    else:
        records.append(status)
        told = cast(Status, status.statement)
        others += [ProofRecord.read(i, log.entry(i)) for i in told.key_events]
        seen = told.log.size
        shown.add(seen)
        if status_checkpoint is None and size > seen + 1:
            status_checkpoint = checkpoint_of(seen)
    ranked = _ranked(others, frozenset(preferred))

    def proof(count: int) -> RunProof:
        chosen = sorted([*records, *ranked[:count]], key=lambda record: record.index)
        indices = [record.index for record in chosen]
        return RunProof(
            checkpoint=checkpoint,
            status_checkpoint=status_checkpoint,
            records=tuple(chosen),
            sizes=tuple(sorted(shown)),
            nodes=tuple(nodes_from_paths(size, indices, shown, log.inclusion)),
        )

    return _largest(proof, len(ranked))


def _largest(proof: Callable[[int], RunProof], count: int) -> RunProof:
    """Return `proof(n)` for the largest n up to `count` that the size cap allows."""
    whole = proof(count)
    if len(encode_proof(whole)) <= MAX_PROOF_BYTES:
        return whole
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        if len(encode_proof(proof(middle))) <= MAX_PROOF_BYTES:
            low = middle
        else:
            high = middle
    return proof(low)


def _ranked(others: list[ProofRecord], preferred: frozenset[str]) -> list[ProofRecord]:
    """Put records in the order in which they go into a proof that cannot hold them all.

    Preferred keys come first, with the intents that their audits rest on; then each signer's
    oldest record, each signer's second, and so on: who logs many records crowds out his own.
    """
    by_hash = {record.hash: record for record in others}
    first = {record.hash for record in others if record.signer in preferred}
    audits = [record.statement for record in others if record.hash in first]
    first |= {
        source.intent
        for audit in audits
        if isinstance(audit, Audit)
        for source in audit.sources
        if source.intent in by_hash
    }
    seen: dict[str, int] = {}
    places: dict[str, int] = {}
    for record in sorted(others, key=lambda record: record.index):
        places[record.hash] = seen[record.signer] = seen.get(record.signer, 0) + 1
    return sorted(
        others,
        key=lambda record: (
            record.hash not in first,
            # An audit without the intents it rests on would be refused.
            not isinstance(record.statement, Intent),
            places[record.hash],
            record.index,
        ),
    )


def _scan(entries: Iterable[tuple[int, Envelope]], run: str) -> _Found:
    found = _Found()
    for record in _records(entries):
        statement = record.statement
        if isinstance(statement, ContractStatement):
            found.contracts.append(record)
        elif isinstance(statement, Genesis):
            found.genesis = record if record.hash == run else found.genesis
        elif isinstance(statement, Status):
            found.statuses.append(record)
        else:
            found.records.append(record)
    return found


def _records(entries: Iterable[tuple[int, Envelope]]) -> Iterator[ProofRecord]:
    for index, envelope in entries:
        payload = envelope.payload
        if not payload.startswith(_BULK, payload.rfind(_TYPE)):
            yield ProofRecord.read(index, envelope)


def _own(
    log: LogReader, found: _Found, run: str, preferred: Collection[str]
) -> tuple[list[ProofRecord], list[ProofRecord]]:
    """Return the run's own records, and what others say of it."""
    genesis = found.genesis
    final = next((r for r in found.records if _is_final(r, run)), None)
    if genesis is None or final is None:
        missing = "genesis" if genesis is None else "final record"
        raise InputError(f"the log's checkpoint does not cover the {missing} of run {run}")
    contract_id = cast(Genesis, genesis.statement).contract
    # Anybody may publish the same contract under another name, and earlier.
    published = [r for r in found.contracts if r.statement.subjects()[0].digest == contract_id]
    contract = min(published, key=lambda r: r.signer not in preferred, default=None)
    if contract is None:
        raise InputError(f"the log does not hold contract {contract_id}")
    found.statuses = [
        r for r in found.statuses if cast(Status, r.statement).contract == contract_id
    ]
    concerning = [r for r in found.records if _concerns(r, run, contract_id, final)]
    others = [r for r in concerning if not isinstance(r.statement, Attempt | Final)]
    finals = [r for r in concerning if isinstance(r.statement, Final)]
    attempts = [r for r in concerning if isinstance(r.statement, Attempt)]
    own = [contract, genesis, *finals]
    if len(attempts) > MAX_LISTED_ATTEMPTS:
        return own, others
    return [*own, *attempts, *_resumed(log, attempts)], others


def _is_final(record: ProofRecord, run: str) -> bool:
    return isinstance(record.statement, Final) and record.statement.run == run


def _concerns(record: ProofRecord, run: str, contract_id: str, final: ProofRecord) -> bool:
    statement = record.statement
    if isinstance(statement, Attempt | Final | Audit | Property):
        return statement.run == run
    if isinstance(statement, Intent):
        target = run if statement.about == "run" else contract_id
        return statement.target == target and record.index < final.index
    return isinstance(statement, Conflict) and _is_about(statement, run)


def _is_about(conflict: Conflict, run: str) -> bool:
    return any(run_of(envelope) == run for envelope in (conflict.first, conflict.second))


def _resumed(log: LogReader, attempts: list[ProofRecord]) -> list[ProofRecord]:
    """Fetch the steps and segments that attempts resume from."""
    wanted = {
        a.resumed_from
        for a in (cast(Attempt, record.statement) for record in attempts)
        if a.step > 0
    }
    records: list[ProofRecord] = []
    for name in sorted(wanted):
        index = log.index_of(bytes.fromhex(name))
        if index is None:
            raise InputError(f"the log does not hold record {name}, which an attempt resumes from")
        records.append(ProofRecord.read(index, log.entry(index)))
    return records


def _newest(statuses: list[ProofRecord], records: list[ProofRecord]) -> ProofRecord | None:
    last = max(record.index for record in records)
    covering = [r for r in statuses if last < cast(Status, r.statement).log.size <= r.index]
    return covering[-1] if covering else None
