"""Verify files for the command line: read them, time the light client, keep its memory of logs.

Imports the light client and nothing else, so that `anh verify` starts at once.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attest.checkpoint import Checkpoint
from attest.client import verify_run
from attest.errors import FormatError, InputError, UnsupportedError
from attest.memory import ConsistencySource, Memory
from attest.note import Note
from attest.policy import load_policy
from attest.proof import parse_proof
from attest.statements import Final, Genesis
from attest.trust import Policy
from attest.verdict import Verdict
from launch.errors import CheckFailed
from launch.key_home import key_folder

if TYPE_CHECKING:
    from launch.opened_tile import OpenedTile

# More than any file to verify may have: the parsers have tighter caps of their own.
MAX_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class TimedVerdict:
    """A verdict and the milliseconds that it took, files already read.

    `remembering` are the milliseconds that the disk took to remember the log's checkpoint.
    """

    verdict: Verdict
    milliseconds: float
    remembering: float


def verify_proof(
    proof: bytes, policy: Policy, *, artifact: Path | None = None, history: Memory | None = None
) -> TimedVerdict:
    """Verify a run proof; raises what the light client raises."""
    start = time.perf_counter()
    verdict = verify_run(proof, policy, artifact=artifact, history=history)
    total = (time.perf_counter() - start) * 1e3
    remembering = 0.0 if history is None else history.writing_seconds * 1e3
    return TimedVerdict(verdict, total - remembering, remembering)


def verify_proof_file(
    path: Path, data: bytes, policy: Policy, *, artifact: Path | None, history: Memory | None
) -> TimedVerdict:
    """Verify the run proof that was read from `path`; bytes that are no proof are told by its name.

    Raises what `verify_proof` raises, and CheckFailed for such bytes.
    """
    try:
        return verify_proof(data, policy, artifact=artifact, history=history)
    except FormatError as error:
        if not isinstance(error, UnsupportedError) and error.code != "version" and _no_proof(data):
            raise CheckFailed(
                f"{path}: no run proof as it was written: {error}; it is damaged, cut off or was "
                "changed after it was written, so get the file again"
            ) from error
        raise


def _no_proof(data: bytes) -> bool:
    """Tell whether the bytes themselves are at fault, and not what is beside them."""
    try:
        Checkpoint.from_text(Note.from_bytes(parse_proof(data).checkpoint).text)
    except FormatError:
        return True
    return False


def read_file(path: Path) -> bytes:
    """Read a file to verify; raises InputError where it is larger than anything acceptable."""
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: more than {MAX_BYTES:,} bytes; no file of ours is that large")
    return data


def read_policy(path: Path) -> Policy:
    """Read the policy; a missing file and a directory are told apart as everywhere."""
    with path.open("rb"):
        pass
    return load_policy(path)


def memory_of(policy: Policy, consistency: ConsistencySource | None = None) -> Memory | None:
    """Return this person's memory of the policy's log, or None where nothing can be kept.

    One folder a log key: the policy pins the key, and another key under one name is another log.
    """
    folder = key_folder().parent / "logs" / policy.log.key.public.hex()[:16]
    try:
        memory = Memory(folder, consistency)
    except InputError:
        return None  # a read-only home: the verdict says that history was not checked
    return memory if os.access(folder, os.W_OK | os.X_OK) else None


def consistency_source(*, history: Path | None, log: str | None) -> ConsistencySource | None:
    """Return where paths between two sizes of the log come from, beside the proof itself.

    `history` is a consistency file, `log` the log's directory or where it is served; at most one is
    given.
    """
    if history is not None:
        from attest.consistency_file import ConsistencyFile

        return ConsistencyFile.load(history).consistency
    if log is not None:
        return _consistency_of(log)
    return None


def _consistency_of(log: str) -> ConsistencySource:
    if not log.startswith(("http://", "https://")):
        from attest.log.sequencer import LocalLog
        from launch.commands.log import log_folder

        return LocalLog.open(log_folder(Path(log))).consistency
    from attest.consistency_file import ConsistencyFile
    from attest.log.http_reader import HttpReader

    service = HttpReader(log.rstrip("/"))

    def ask(old: int, new: int) -> Sequence[bytes]:
        # The path itself is checked against both checkpoints: whoever gives it is not believed.
        answer = service.get(f"/proof/consistency?old={old}&new={new}")
        return ConsistencyFile.from_bytes(answer.data).consistency(old, new)

    return ask


def verify_opened_tile(data: bytes, proof: bytes) -> "OpenedTile":
    """Check an opened tile against a run proof that has been verified; returns it.

    Raises FormatError or RefusedError naming what does not hold.
    """
    from launch.opened_tile import OpenedTile

    opened = OpenedTile.from_bytes(data)
    parsed = parse_proof(proof)
    genesis = parsed.of_kind(Genesis)[0]
    final = parsed.of_kind(Final)[0]
    if not isinstance(genesis.statement, Genesis) or not isinstance(final.statement, Final):
        raise FormatError("run proof: holds no genesis or final record")
    opened.verify(run=genesis.hash, genesis=genesis.statement, final=final.statement)
    return opened
