"""A served log put together: intake, publication and desks over one open log, whoever serves it."""

from __future__ import annotations

import time
from pathlib import Path

from attest.keys import PrivateKey
from attest.log.admission import Candidate
from attest.log.answer import Answer, json_answer
from attest.log.front_desk import ADDRESS_RATE, KEY_RATE, FrontDesk, Quotas
from attest.log.intake import Intake
from attest.log.kept_heads import KeptHeads
from attest.log.metrics import Gauge, Metrics
from attest.log.publication import Publication
from attest.log.published_log import PublishedLog
from attest.log.quota import Quota, Rate
from attest.log.reading_desk import ReadingDesk
from attest.log.reporter import Reporter
from attest.log.run_index import RunIndex
from attest.log.sequencer import LocalLog

_COUNTERS = {
    "anh_log_records_total": ("Records handed in, by what became of them.", "outcome"),
    "anh_log_requests_refused_total": ("Requests refused before any record was judged.", "code"),
}
_DURATIONS = {"anh_log_checkpoint_seconds": "Time to sign, have cosigned and publish a head."}


class House:
    """Serve one open log; `open` starts its threads, `close` ends them and leaves nothing undone.

    `directory` is the log's; `reporter` signs what the log says of runs that told two stories,
    without it nothing is said. The log stays its caller's to close.
    """

    def __init__(
        self,
        log: LocalLog,
        directory: Path,
        *,
        reporter: PrivateKey | None = None,
        checkpoint_seconds: float = 0.5,
        key_rate: Rate = KEY_RATE,
        address_rate: Rate = ADDRESS_RATE,
    ) -> None:
        self._log = log
        self._metrics = Metrics(_COUNTERS, _DURATIONS)
        self._kept = KeptHeads(directory / "heads")
        self._published = PublishedLog(log.tiles.read, log.names)
        self._publication = Publication(
            log,
            self._published,
            self._kept,
            seconds=checkpoint_seconds,
            told=self._checkpointed,
            indexed=self._report,
        )
        self.intake = Intake(log)
        self._reporter = None
        if reporter is not None:
            submit = self.intake.submit
            self._reporter = Reporter(reporter, self._published, log.index_of, submit)
        self._checkpointed_at = time.monotonic()
        self.front = FrontDesk(
            self.intake,
            self._publication,
            Quotas(Quota(address_rate), Quota(key_rate)),
            self._metrics,
            self._contradicted,
        )
        self.reading = ReadingDesk(
            log, self._published, self._publication, self._kept, log.tiles.read
        )

    def open(self) -> None:
        """Publish what there is, read the runs in it, and begin to take records.

        Raises:
            RefusedError: if the log is damaged.
            InputError: if it cannot be read, or its keys are missing.
        """
        self._publication.start()
        self.intake.start()

    def close(self) -> None:
        """Commit and answer what was taken on, and publish it."""
        self.intake.close()
        self._publication.close()

    def health(self) -> Answer:
        """Say whether the log takes records and publishes them: status 200, else 503."""
        troubles = (
            self.intake.broken,
            self._publication.broken,
            self.intake.trouble,
            self._publication.trouble,
        )
        trouble = next((error for error in troubles if error is not None), None)
        return json_answer(
            {
                "frozen": self._log.frozen,
                "healthy": trouble is None,
                "origin": self._log.origin,
                "published": self._publication.index.size,
                "trouble": "" if trouble is None else _words(trouble),
                "witnesses": {
                    witness.vkey.name: _words(witness.trouble)
                    for witness in self._log.witnesses.witnesses
                },
            },
            status=200 if trouble is None else 503,
        )

    def metrics_text(self) -> str:
        """Return counts and gauges as Prometheus reads them."""
        index = self._publication.index
        with self._publication.mutex:
            open_runs = sum(place.final is None for place in index.runs.values())
        age = time.monotonic() - self._checkpointed_at
        asked = self._log.witnesses.witnesses
        silent = sum(bool(witness.trouble) for witness in asked)
        gauges = (
            Gauge("anh_log_witnesses", "Witnesses elsewhere that are asked.", len(asked)),
            Gauge("anh_log_silent_witnesses", "Those that did not cosign when asked.", silent),
            Gauge("anh_log_size", "Records acknowledged.", self._log.size),
            Gauge("anh_log_published_size", "Records under a published checkpoint.", index.size),
            Gauge(
                "anh_log_waiting_records", "Records that wait for a commit.", self.intake.waiting
            ),
            Gauge("anh_log_runs", "Runs begun.", len(index.runs)),
            Gauge("anh_log_open_runs", "Runs begun and not ended.", open_runs),
            Gauge("anh_log_checkpoint_age_seconds", "Time since the newest head.", age),
        )
        return self._metrics.text(gauges)

    def _contradicted(self, candidate: Candidate) -> None:
        if self._reporter is not None:
            self._reporter.saw(candidate, self._log.size)

    def _report(self, index: RunIndex) -> None:
        if self._reporter is not None:
            self._reporter.report(index)

    def _checkpointed(self, seconds: float) -> None:
        self._checkpointed_at = time.monotonic()
        self._metrics.time("anh_log_checkpoint_seconds", seconds)


def _words(error: object) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in str(error))[:400]
