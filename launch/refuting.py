"""Judges a refutation for `anh verify`: signatures and paths at once, then the one operator."""

import time
from dataclasses import dataclass
from typing import Any

from attest.errors import AttestError
from attest.refutation import Accused, Refutation, verify_refutation
from launch.compile_cache import set_compile_cache
from launch.errors import CommandError, ExitCode
from launch.output import Tone, printable, table, toned


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said about a refutation, in both forms, and what the command exits with."""

    document: dict[str, Any]
    lines: list[str]
    exit_code: ExitCode


def check_refutation(data: bytes) -> Answer:
    """Check a refutation and run its operator: 1 where the run is refuted, 0 where it is not.

    Raises CommandError, exit code 2, for a file that shows nothing: a signature, a path, a value or
    the claim does not hold. Without the packages of the train extra ImportError says which.
    """
    start = time.perf_counter()
    try:
        refutation = Refutation.from_bytes(data)
        accused = verify_refutation(refutation)
    except AttestError as error:
        raise CommandError(f"no refutation: {error}") from error
    signed = (time.perf_counter() - start) * 1e3
    set_compile_cache()
    from anh_jax.audit.refutation import judge
    from anh_jax.errors import AnhError

    try:
        judged = judge(refutation)
    except (AttestError, AnhError) as error:
        raise CommandError(f"no refutation: {error}") from error
    total = (time.perf_counter() - start) * 1e3
    facts = _facts(refutation, accused)
    document: dict[str, Any] = {
        **dict(facts),
        "refuted": not judged.excess.accepted,
        "words": judged.words,
        "excess": judged.excess.value,
        "milliseconds": round(total, 3),
    }
    rows = [*facts, ("why", printable(judged.words))]
    times = f"signatures checked in {signed:.1f} ms, the operator in {total - signed:.0f} ms"
    if judged.excess.accepted:
        line = toned("not refuted: the operator is within its bound", Tone.DOUBTFUL)
        return Answer(document, [line, *table(rows), times], ExitCode.PASSED)
    line = toned(f"REFUTED: step {accused.step} of run {accused.run[:16]}", Tone.BAD)
    return Answer(document, [line, *table(rows), times], ExitCode.FAILED)


def _facts(refutation: Refutation, accused: Accused) -> list[tuple[str, str]]:
    return [
        ("run", accused.run),
        ("trainer", printable(accused.genesis.trainer)),
        ("step", str(accused.step)),
        ("operator", printable(refutation.entry.text)),
        ("program", accused.recording.program),
        ("backend", accused.recording.backend),
    ]
