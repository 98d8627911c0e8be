"""One run as its log holds it: its statements, and what auditors have said about it so far."""

from collections.abc import Mapping
from dataclasses import dataclass

from anh_jax.audit.transcript import Transcript, read_transcript
from anh_jax.run_directory import RunDirectory
from attest.log.run_log import RunLog
from attest.sample import commitment
from attest.statements import Audit, Final, Genesis, Intent, Nonce, decode_statement
from launch.errors import CommandError
from launch.segment_rows import SegmentRows


@dataclass(frozen=True, slots=True)
class LoggedIntent:
    """An intent on the run or its contract: at which index, by which key, with which record."""

    index: int
    record: str
    keyid: str
    intent: Intent


@dataclass(frozen=True, slots=True)
class Announced:
    """The intents on a run, in the order of the log, and the nonces revealed (by intent, hex).

    `final_index` is None until the run's final record is in the log.
    """

    intents: tuple[LoggedIntent, ...]
    nonces: Mapping[str, str]
    final_index: int | None

    def first_by(self, keyid: str) -> LoggedIntent | None:
        """Return a key's first intent, if it came before the final record."""
        first = next((found for found in self.intents if found.keyid == keyid), None)
        if first is None or (self.final_index is not None and first.index > self.final_index):
            return None
        return first


def read_announced(log: RunLog, run: str) -> Announced:
    """Read the intents on a run (its id, hex) and on its contract, and the nonces revealed."""
    intents: dict[str, LoggedIntent] = {}
    nonces: dict[str, str] = {}
    targets = {run}
    final_index: int | None = None

    def reveal(record: str, nonce: str) -> None:
        # Anybody may write anything into a receipt: only what an intent committed to is a nonce.
        found = intents.get(record)
        if found and commitment(bytes.fromhex(nonce)).hex() == found.intent.commitment:
            nonces[record] = nonce

    for index, envelope in log.about(run):
        record = envelope.record_hash().hex()
        match decode_statement(envelope.payload):
            case Genesis(contract=contract) if record == run:
                targets.add(contract)
            case Intent() as intent:
                signer = envelope.signatures[0].keyid
                intents[record] = LoggedIntent(index, record, signer, intent)
            case Nonce(intent=of, nonce=nonce):
                reveal(of, nonce)
            case Audit(sources=sources):
                for source in sources:
                    reveal(source.intent, source.nonce)
            case Final(run=of) if of == run:
                final_index = index if final_index is None else final_index
            case _:
                continue
    about = tuple(found for found in intents.values() if found.intent.target in targets)
    return Announced(about, nonces, final_index)


def read_closed_run(log: RunLog, run: str, directory: RunDirectory) -> Transcript:
    """Read a run (its id, hex) that has its final record in the log.

    The rows of segments are read from the run directory. Raises EquivocationError where they were
    signed otherwise than the segments.
    """
    if log.index_of(bytes.fromhex(run)) is None:
        raise CommandError(f"log {log.origin}: does not hold run {run[:16]}; is it this run's log?")
    rows_of = SegmentRows(directory, log)
    entries = (envelope for _, envelope in log.about(run))
    return read_transcript(entries, run=run, rows_of=rows_of)
