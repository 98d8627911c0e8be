"""The rows that a log's segments commit, read from the run directory and compared with them."""

from collections.abc import Sequence

from anh_jax.run_directory import RunDirectory
from attest.attempt_rows import AttemptRows, OtherRowsError
from attest.envelope import Envelope
from attest.equivocation import encode_row_evidence
from attest.errors import EquivocationError, RefusedError
from attest.log.run_log import RunLog
from attest.segment import CHECK
from attest.statements import Attempt, Segment, Step, decode_statement
from launch.evidence import keep_evidence


class SegmentRows:
    """Finds the rows of a run's segments, in the order of the log."""

    def __init__(self, run: RunDirectory, log: RunLog) -> None:
        self._run = run
        self._log = log
        self._attempts: dict[str, AttemptRows] = {}
        self._steps: dict[tuple[str, int], Envelope] | None = None

    def __call__(self, attempt: Attempt, envelope: Envelope) -> Sequence[Envelope]:
        """Return the rows that a logged segment of an attempt commits.

        Raises RefusedError where they are missing or not what the hosts signed, and
        EquivocationError where the hosts signed other rows than the segment commits, or than the
        log holds as steps of the same attempt: the evidence is kept.
        """
        segment = decode_statement(envelope.payload)
        if not isinstance(segment, Segment):
            raise RefusedError(f"a {segment.KIND} stands where a segment belongs", check=CHECK)
        rows = self._attempts.get(segment.attempt)
        if rows is None:
            rows = AttemptRows(self._run.root / "steps", attempt, segment.attempt)
            self._attempts[segment.attempt] = rows
        try:
            found = rows.take(segment)
        except OtherRowsError as error:
            raise self._two_stories(str(error), segment, [envelope, *error.rows]) from None
        for step, row in enumerate(found, start=segment.first):
            told = self._logged_steps().get((segment.attempt, step), row)
            if told.record_hash() != row.record_hash():
                words = f"attempt {attempt.number}, step {step}: the log holds another row besides"
                raise self._two_stories(words, segment, [told, row])
        return found

    def _logged_steps(self) -> dict[tuple[str, int], Envelope]:
        """Return the steps that the log holds: of an attempt with segments there should be none."""
        if self._steps is None:
            entries = self._log.entries(0, self._log.size)
            said = ((decode_statement(entry.payload), entry) for entry in entries)
            self._steps = {
                (statement.attempt, statement.row.step): entry
                for statement, entry in said
                if isinstance(statement, Step)
            }
        return self._steps

    def _two_stories(
        self, words: str, segment: Segment, records: Sequence[Envelope]
    ) -> EquivocationError:
        genesis, attempt = (self._logged(record) for record in (segment.run, segment.attempt))
        evidence = encode_row_evidence(genesis, attempt, records)
        found = EquivocationError(f"{words}; its first worker signed both", evidence=evidence)
        return keep_evidence(found, f"{segment.attempt}.{segment.first}")

    def _logged(self, record: str) -> Envelope:
        index = self._log.index_of(bytes.fromhex(record))
        if index is None:
            raise RefusedError(f"the log does not hold record {record}", check=CHECK)
        return self._log.entry(index)
