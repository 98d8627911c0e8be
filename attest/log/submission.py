"""What one submitter hands in at once, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from attest.errors import RefusedError
from attest.log.admission import Candidate


@dataclass(frozen=True, slots=True)
class Submission:
    """Hold records in the order in which they are to be logged.

    `keys` are public keys of signers whom their statements name by keyid only. `then` is why what
    follows the last record could not even be read, None where nothing follows.
    """

    records: tuple[Candidate, ...]
    keys: tuple[bytes, ...] = ()
    then: RefusedError | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold the indices of the records that were taken, those known before included.

    `refusal` says why the next one was not, and that no other followed it; None if all were taken.
    """

    indices: tuple[int, ...]
    refusal: RefusedError | None
