"""One record out of the files of several hosts: the same payload, every host's signature.

Every host signs the same bytes. Where one did not, its copy of the state has silently gone another
way, and no further step of the attempt is worth training on.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

from attest.envelope import Envelope
from attest.errors import FormatError, InputError, RefusedError
from attest.keys import keyid
from attest.statements import Attempt, Row, Step, decode_statement
from attest.step_file import read_lines

# How many rows of one host are held in memory while another host's are awaited.
_LOOKAHEAD = 4096


@dataclass(frozen=True, slots=True)
class Taken:
    """Hold records that are ready for the log, and how many rows they commit."""

    records: list[Envelope]
    rows: int


class Joiner(Protocol):
    """Give what one attempt has signed, as its log takes it."""

    @property
    def signed(self) -> int:
        """Return how many rows the furthest host has signed, as far as they were read."""
        ...

    def take(self, limit: int) -> Taken:
        """Return the next records, at most `limit`, that all hosts have signed for."""
        ...


class DivergenceError(RefusedError):
    """Report that the hosts of an attempt signed different rows for one step."""

    def __init__(self, message: str, *, step: int, ranks: tuple[int, ...]) -> None:
        super().__init__(message, check="host divergence")
        self.step = step
        self.ranks = ranks


class HostFile:
    """Read what one host has signed, as far as it is durable."""

    def __init__(self, path: Path, signer: str) -> None:
        self.path = path
        self.rows: deque[Envelope] = deque()
        self.read = 0
        self._signer = signer
        self._end = 0

    def fill(self) -> None:
        """Read on; a line counts only after the file was synced with the line in it.

        Otherwise the log could be ahead of a file that a power failure cut, and the resumed host
        would sign another row for a step that is logged.
        """
        if len(self.rows) >= _LOOKAHEAD or not self.path.exists():
            return
        durable = _synced_size(self.path, self._end)
        if durable <= self._end:
            return
        for line in read_lines(self.path, start=self._end):
            if line.end > durable or len(self.rows) >= _LOOKAHEAD:
                break
            if line.envelope.signatures[0].keyid != self._signer:
                raise FormatError(
                    f"{self.path}: row {self.read + 1} is not signed by this host's key",
                    code="signer",
                )
            self.rows.append(line.envelope)
            self.read += 1
            self._end = line.end


class AttemptJoiner:
    """Join the step files `<number>-<rank>.jsonl` of one attempt, row by row.

    Raises:
        InputError: from `take`, if a file cannot be read.
        FormatError: from `take`, if a file is damaged or another key's.
        DivergenceError: from `take`, if the hosts do not agree.
    """

    def __init__(self, steps: Path, attempt: Attempt) -> None:
        self._number = attempt.number
        self._hosts = [
            HostFile(steps / f"{attempt.number}-{rank}.jsonl", keyid(bytes.fromhex(key)))
            for rank, key in enumerate(attempt.worker_keys)
        ]

    @property
    def signed(self) -> int:
        """Return how many rows the furthest host has signed, as far as they were read."""
        return max(host.read for host in self._hosts)

    def take(self, limit: int) -> Taken:
        """Return the next rows, at most `limit`, that all hosts have signed and made durable."""
        for host in self._hosts:
            host.fill()
        rows = [self._join() for _ in range(min(limit, *(len(h.rows) for h in self._hosts)))]
        return Taken(rows, len(rows))

    def _join(self) -> Envelope:
        rows = [host.rows.popleft() for host in self._hosts]
        payload = rows[0].payload
        if any(row.payload != payload for row in rows):
            raise self._divergence(rows)
        signatures = (row.signatures[0] for row in rows)
        return Envelope(payload, tuple(sorted(signatures, key=lambda s: s.keyid)))

    def _divergence(self, rows: list[Envelope]) -> DivergenceError:
        groups: dict[bytes, list[int]] = {}
        for rank, row in enumerate(rows):
            groups.setdefault(row.payload, []).append(rank)
        # Most hosts are taken to be right: those outside the largest group are named first.
        *odd, agreed = sorted(groups.values(), key=len)
        ranks = tuple(sorted(rank for group in odd for rank in group))
        step = min(_step_of(row).row.step for row in rows)
        names = sorted(_differing(_step_of(rows[ranks[0]]).row, _step_of(rows[agreed[0]]).row))
        return DivergenceError(
            f"attempt {self._number}, step {step}: host {_listed(ranks)} signed another row than "
            f"host {_listed(agreed)} (in {', '.join(names) or 'attempt'}); the hosts' states have "
            "silently diverged: stop the run and resume from the last checkpoint",
            step=step,
            ranks=ranks,
        )


def _synced_size(path: Path, known: int) -> int:
    """Sync a file if it has grown beyond what is known; return how much of it is durable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size > known:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"cannot sync {path}: {error.strerror}; check the disk") from None
    return size


def _step_of(envelope: Envelope) -> Step:
    statement = decode_statement(envelope.payload)
    if not isinstance(statement, Step):
        raise FormatError(f"step file holds a record of kind {statement.KIND}", code="kind")
    return statement


def _differing(first: Row, second: Row) -> Iterator[str]:
    return (f.name for f in fields(Row) if getattr(first, f.name) != getattr(second, f.name))


def _listed(ranks: tuple[int, ...] | list[int]) -> str:
    return ", ".join(str(rank) for rank in ranks)
