"""What a served log answers to submitters: quotas first, then the intake, then a checkpoint's wait.

Checks come in the order of their cost: size and shape before this desk is asked, quotas here,
signatures and the database in the intake's thread.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from attest.errors import RefusedError
from attest.log.admission import Candidate
from attest.log.answer import Answer, json_answer, refused
from attest.log.intake import Intake
from attest.log.metrics import Metrics
from attest.log.publication import Publication
from attest.log.quota import Quota, Rate
from attest.log.reporter import CONFLICTS
from attest.log.submission import Outcome, Submission
from attest.rejections import RejectedError

MOST_WAIT_SECONDS = 30
KEY_RATE = Rate(per_second=2_000, burst=20_000)
ADDRESS_RATE = Rate(per_second=10_000, burst=100_000)


class TooManyError(RejectedError):
    """Report a quota that is used up, and after how many `seconds` to come again."""

    def __init__(self, whose: str, seconds: int) -> None:
        super().__init__(f"too many records from this {whose}; wait {seconds} s", check="quota")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Quotas:
    """Hold how much one address and one signing key may hand in.

    An address pays for what it asks, a key for what it gets: nobody spends another's quota with
    records that the other never signed.
    """

    addresses: Quota
    keys: Quota

    def admit(self, address: str, records: int) -> None:
        """Let an address in, and charge it.

        Raises:
            TooManyError: if it, or a key, has used up its quota.
        """
        if seconds := self.addresses.wait(address):
            raise TooManyError("address", seconds)
        self.addresses.charge(address, records + 1)

    def check_keys(self, keys: Iterable[str]) -> None:
        """Refuse a key that is in debt.

        Raises:
            TooManyError: if one is.
        """
        for key in keys:
            if seconds := self.keys.wait(key):
                raise TooManyError("key", seconds)


class FrontDesk:
    """Take submissions on and answer when they are on the disk, or under a checkpoint."""

    def __init__(
        self,
        intake: Intake,
        publication: Publication,
        quotas: Quotas,
        metrics: Metrics,
        contradicted: Callable[[Candidate], None],
    ) -> None:
        self._intake = intake
        self._publication = publication
        self._metrics = metrics
        self._contradicted = contradicted
        self._mailbox = _Mailbox()
        self.quotas = quotas

    async def submit(self, submission: Submission, wait: int) -> Answer:
        """Log records, and wait up to so many seconds for a checkpoint over them.

        200: all are in the log, and under the answer's checkpoint if `wait` is above 0. 202: they
        are in the log, the checkpoint is not there yet. Else the table's status of the first
        refusal; `indices` are those of the records before it.

        Raises:
            RejectedError: if nothing was taken on.
        """
        signers = Counter(record.logged.signers[0] for record in submission.records)
        self.quotas.check_keys(signers)
        outcome = await self._mailbox.outcome_of(self._intake.submit(submission))
        for key, count in _taken(submission, outcome).items():
            self.quotas.keys.charge(key, count)
        self._metrics.count("anh_log_records_total", "taken", len(outcome.indices))
        if outcome.refusal is not None:
            if outcome.refusal.check in CONFLICTS:
                self._contradicted(submission.records[len(outcome.indices)])
            self._metrics.count("anh_log_records_total", outcome.refusal.check)
            return refused(outcome.refusal, outcome.indices)
        indices = outcome.indices
        if not wait:
            return json_answer({"indices": indices})
        note = await self._covering(max(indices, default=-1) + 1, min(wait, MOST_WAIT_SECONDS))
        if note is None:
            return json_answer({"indices": indices}, status=202)
        checkpoint = base64.b64encode(note).decode()
        return json_answer({"checkpoint": checkpoint, "indices": indices})

    async def _covering(self, size: int, seconds: int) -> bytes | None:
        try:
            return await asyncio.wait_for(
                asyncio.wrap_future(self._publication.covering(size)), seconds
            )
        except TimeoutError:
            return None

    def count_refusal(self, error: RefusedError) -> None:
        """Count a request that was refused before any of its records was judged."""
        self._metrics.count("anh_log_requests_refused_total", error.check)


class _Mailbox:
    """Bring outcomes from the intake's thread to the event loop: one wake-up for a whole batch."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._letters: list[tuple[asyncio.Future[Outcome], Future[Outcome]]] = []

    async def outcome_of(self, taken_on: Future[Outcome]) -> Outcome:
        """Wait for an outcome."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Outcome] = loop.create_future()

        def arrived(done: Future[Outcome]) -> None:
            with self._mutex:
                self._letters.append((waiter, done))
                first = len(self._letters) == 1
            if first:
                loop.call_soon_threadsafe(self._deliver)

        taken_on.add_done_callback(arrived)
        return await waiter

    def _deliver(self) -> None:
        with self._mutex:
            letters, self._letters = self._letters, []
        for waiter, done in letters:
            if waiter.done():
                continue  # whoever asked has gone
            error = done.exception()
            if error is None:
                waiter.set_result(done.result())
            else:
                waiter.set_exception(error)


def _taken(submission: Submission, outcome: Outcome) -> Counter[str]:
    taken = submission.records[: len(outcome.indices)]
    return Counter(record.logged.signers[0] for record in taken)
