"""Find the records to export, in a run proof, a run directory or a log, each with its path."""

import re
from dataclasses import dataclass
from pathlib import Path

from attest.checkpoint import Checkpoint
from attest.multiproof import nodes_from_paths
from attest.note import Note
from attest.proof import ProofRecord, RunProof, parse_proof
from launch.errors import CommandError
from launch.verification import read_file

_HASH = re.compile(r"[0-9a-f]{64}")
_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The records to export, by rising index, and the proof that holds them."""

    proof: RunProof
    records: tuple[ProofRecord, ...]

    @property
    def one(self) -> ProofRecord:
        """Return the only record; raises CommandError where several were chosen."""
        if len(self.records) != 1:
            raise CommandError(
                f"{len(self.records)} records answer to that: name one by its index, --record "
                f"{self.records[0].index}, say"
            )
        return self.records[0]


def choose(source: Path, wanted: str | None) -> Chosen:
    """Choose records of a run proof, of a run directory or of a log's directory.

    `wanted` is a log index, a record hash or a kind of statement; None are all records of the run
    proof. In a directory an index or a hash is looked up in the log, which has the steps too.

    Raises CommandError where there is none.
    """
    if source.is_dir():
        if wanted is not None and (_INDEX.fullmatch(wanted) or _HASH.fullmatch(wanted)):
            return _from_log(source, wanted)
        proof = source / "run.proof"
        if not proof.is_file():
            raise CommandError(
                f"{source}: holds no run.proof; 'anh prove {source}' writes one, or name a record "
                "of the log by its index, --record 0, say"
            )
        source = proof
    proof = parse_proof(read_file(source))
    records = tuple(r for r in proof.records if wanted is None or _answers(r, wanted))
    if not records:
        held = ", ".join(f"{r.index} ({r.statement.KIND})" for r in proof.records[:12])
        raise CommandError(f"--record {wanted}: {source} holds none such; it holds {held}")
    return Chosen(proof, records)


def final_of(source: Path) -> ProofRecord:
    """Return the final record of a run directory's proof."""
    return choose(source, "final").one


def _answers(record: ProofRecord, wanted: str) -> bool:
    return wanted in (str(record.index), record.hash, record.statement.KIND)


def _from_log(directory: Path, wanted: str) -> Chosen:
    from launch.logs import open_log_of

    log = open_log_of(directory)
    try:
        checkpoint = log.published()
        size = Checkpoint.from_text(Note.from_bytes(checkpoint).text).size
        index = int(wanted) if len(wanted) < 64 else log.index_of(bytes.fromhex(wanted))
        if index is None or index >= size:
            raise CommandError(
                f"--record {wanted}: is no entry of the log's {size:,} in {directory}"
            )
        record = ProofRecord.read(index, log.entry(index))
        nodes = tuple(nodes_from_paths(size, [index], (), log.inclusion))
    finally:
        log.close()
    return Chosen(RunProof(checkpoint, None, (record,), (), nodes), (record,))
