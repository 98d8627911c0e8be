"""Opens attempts for workers that hold no run key.

A worker writes its request as a file and waits; the driver, which holds the key, gathers the
requests of all ranks of the living generation, has them signed, and writes one grant that every
rank reads. Requests of a generation that is over are never looked at: a group that died half way
through asking cannot lend its keys to the group that replaces it.
"""

import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from anh_jax.training.seams import AttemptGrant, AttemptRequest
from launch.attempt_files import AttemptFileError, AttemptFiles, Generation, read_bytes, read_json
from launch.attempt_files import write_json as write_json_file
from launch.errors import CommandError

GRANT_SECONDS = 120.0
_FIRST_POLL, _LAST_POLL = 0.02, 0.5
# What one attempt statement says once for all ranks must be the same in every rank's request.
_SHARED = ("resumed_record_hex", "step", "mesh", "processes", "reason", "initial_root")

_T = TypeVar("_T")

Grant = Callable[[Sequence[AttemptRequest]], AttemptGrant]


class BrokerError(CommandError):
    """Report that a group of workers gets no attempt."""


class DirectBroker:
    """Opens the attempt of a single worker in the process that holds the key."""

    def __init__(self, grant: Grant) -> None:
        self._grant = grant

    def open_attempt(self, request: AttemptRequest) -> AttemptGrant:
        """Return the attempt; raises BrokerError for a request that counts on other workers."""
        _check_group([request], Generation(name="local", index=0, processes=1))
        return self._grant([request])


class FileBroker:
    """Asks for one worker's attempt through files; one object serves one generation."""

    def __init__(
        self, files: AttemptFiles, generation: str, *, seconds: float = GRANT_SECONDS
    ) -> None:
        self._files = files
        self._generation = generation
        self._seconds = seconds

    def open_attempt(self, request: AttemptRequest) -> AttemptGrant:
        """Return the group's attempt once the driver has signed it.

        Raises BrokerError when another worker has the same rank, when the driver refuses, when
        another generation has begun, or when no answer comes within the broker's seconds.
        """
        self._claim(request.rank)
        path = self._files.request(self._generation, request.rank)
        write_json_file(path, msgspec.to_builtins(request))
        deadline = time.monotonic() + self._seconds
        pause = _FIRST_POLL
        while True:
            grant = self._answer()
            if grant is not None:
                return grant
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"rank {request.rank}: no attempt was signed within {self._seconds:g} s; is "
                    f"the process that started the run alive, and does it see {self._files.folder}?"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _LAST_POLL)

    def _claim(self, rank: int) -> None:
        path = self._files.claim(self._generation, rank)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError as error:
            holder = (read_bytes(path) or b"").decode(errors="replace")
            raise BrokerError(
                f"rank {rank} of this group is taken by {holder or 'another worker'}: two workers "
                "were given one rank; restart the run"
            ) from error
        try:
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        finally:
            os.close(handle)

    def _answer(self) -> AttemptGrant | None:
        data = read_bytes(self._files.grant(self._generation))
        if data is not None:
            return _decode(data, AttemptGrant, self._files.grant(self._generation))
        refusal = read_json(self._files.refusal(self._generation))
        if refusal is not None:
            raise BrokerError(str(refusal.get("message", "refused without a reason")))
        living = self._files.living()
        if living is None or living.name != self._generation:
            raise BrokerError("this group of workers has been replaced by another one")
        return None


class AttemptBoard:
    """The driver's side: waits until every rank of the living generation has asked, then grants.

    `grant` gets the requests in order of rank, runs in the caller's thread and holds the run key.
    """

    def __init__(self, files: AttemptFiles, grant: Grant) -> None:
        self._files = files
        self._grant = grant
        self._answered: set[str] = set()
        self._grants: list[AttemptGrant] = []

    @classmethod
    def open(cls, files: AttemptFiles, grant: Grant) -> "AttemptBoard":
        """Begin with an empty folder: nothing asked of an earlier driver is granted by this one."""
        files.clear()
        return cls(files, grant)

    @property
    def grants(self) -> tuple[AttemptGrant, ...]:
        """Return the attempts granted so far, oldest first."""
        return tuple(self._grants)

    def serve(self) -> AttemptGrant | None:
        """Grant the living generation's attempt if all its ranks have asked; else return None.

        Raises BrokerError where the requests do not fit together, and whatever `grant` raises; the
        waiting workers are told before it is raised here.
        """
        generation = self._files.living()
        if generation is None or generation.name in self._answered:
            return None
        try:
            requests = self._requests(generation)
            if len(requests) < generation.processes:
                return None
            _check_group(requests, generation)
            granted = self._grant(self._with_reason(requests))
        except Exception as error:
            self._answered.add(generation.name)
            write_json_file(self._files.refusal(generation.name), {"message": str(error)})
            raise
        self._answered.add(generation.name)
        self._grants.append(granted)
        write_json_file(self._files.grant(generation.name), msgspec.to_builtins(granted))
        return granted

    def _requests(self, generation: Generation) -> list[AttemptRequest]:
        found: list[AttemptRequest] = []
        for path in self._files.requests(generation.name):
            request = _decode(read_bytes(path) or b"", AttemptRequest, path)
            if path != self._files.request(generation.name, request.rank):
                raise BrokerError(
                    f"{path}: holds the request of rank {request.rank}; restart the run"
                )
            found.append(request)
        return sorted(found, key=lambda request: request.rank)

    def _with_reason(self, requests: list[AttemptRequest]) -> list[AttemptRequest]:
        # A worker sees only that a training checkpoint exists; that its group replaces one that
        # had already begun an attempt is known here alone.
        if not self._grants:
            return requests
        return [msgspec.structs.replace(request, reason="worker lost") for request in requests]


def _check_group(requests: list[AttemptRequest], generation: Generation) -> None:
    ranks = [request.rank for request in requests]
    if ranks != list(range(generation.processes)):
        raise BrokerError(
            f"a group of {generation.processes} workers asked with the ranks {ranks}; restart the "
            "run"
        )
    first = requests[0]
    for request in requests:
        if request.processes != generation.processes:
            raise BrokerError(
                f"rank {request.rank} counts {request.processes} workers in a group of "
                f"{generation.processes}; restart the run"
            )
        for name in _SHARED:
            if getattr(request, name) != getattr(first, name):
                raise BrokerError(
                    f"rank {request.rank} and rank 0 ask with a different {name}; do they see the "
                    "same run directory?"
                )
    if len({request.public_key_hex for request in requests}) != len(requests):
        raise BrokerError("two ranks ask with the same public key; each worker makes its own")


def _decode(data: bytes, kind: type[_T], path: Path) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise AttemptFileError(f"{path}: {error}; restart the run") from error
