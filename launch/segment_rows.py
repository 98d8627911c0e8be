"""The rows that a log's segments commit, read from the run directory and compared with them."""

from collections.abc import Sequence

from anh_jax.run_directory import RunDirectory
from attest.attempt_rows import AttemptRows, OtherRowsError
from attest.envelope import Envelope
from attest.equivocation import encode_row_evidence
from attest.errors import EquivocationError, RefusedError
from attest.log.sequencer import LocalLog
from attest.segment import CHECK
from attest.statements import Attempt, Segment, decode_statement
from launch.evidence import keep_evidence


class SegmentRows:
    """Finds the rows of a run's segments, in the order of the log."""

    def __init__(self, run: RunDirectory, log: LocalLog) -> None:
        self._run = run
        self._log = log
        self._attempts: dict[str, AttemptRows] = {}

    def __call__(self, attempt: Attempt, envelope: Envelope) -> Sequence[Envelope]:
        """Return the rows that a logged segment of an attempt commits.

        Raises RefusedError where they are missing or not what the hosts signed, and
        EquivocationError where the hosts signed other rows than the segment: the evidence is kept.
        """
        segment = decode_statement(envelope.payload)
        if not isinstance(segment, Segment):
            raise RefusedError(f"a {segment.KIND} stands where a segment belongs", check=CHECK)
        rows = self._attempts.get(segment.attempt)
        if rows is None:
            rows = AttemptRows(self._run.root / "steps", attempt, segment.attempt)
            self._attempts[segment.attempt] = rows
        try:
            return rows.take(segment)
        except OtherRowsError as error:
            raise self._two_stories(error, segment, envelope) from None

    def _two_stories(
        self, error: OtherRowsError, segment: Segment, envelope: Envelope
    ) -> EquivocationError:
        genesis, attempt = (self._logged(record) for record in (segment.run, segment.attempt))
        evidence = encode_row_evidence(genesis, attempt, [envelope, *error.rows])
        words = f"{error}; its first worker signed both"
        found = EquivocationError(words, evidence=evidence)
        return keep_evidence(found, envelope.record_hash().hex())

    def _logged(self, record: str) -> Envelope:
        index = self._log.index_of(bytes.fromhex(record))
        if index is None:
            raise RefusedError(f"the log does not hold record {record}", check=CHECK)
        return self._log.entry(index)
