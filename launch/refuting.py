"""Judges a refutation for `anh verify`: signatures and paths at once, then what was computed.

Each kind of file names itself in its format, and is checked by itself: nobody has to be trusted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attest import canonical, init_refutation, recording_refutation, refutation, step_refutation
from attest.digest_tree import path_text
from attest.errors import AttestError
from attest.file_fields import MAX_BYTES
from launch.compile_cache import set_compile_cache
from launch.errors import CommandError, ExitCode
from launch.output import Tone, printable, table, toned

Facts = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said about a refutation, in both forms, and what the command exits with."""

    document: dict[str, Any]
    lines: list[str]
    exit_code: ExitCode


@dataclass(frozen=True, slots=True)
class Finding:
    """What judging a file gave: `refuted` or not, why, and further values for programs."""

    refuted: bool
    words: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A file whose signatures and paths hold: whom it is about, and what is left to compute."""

    subject: str
    facts: Facts
    part: str
    judge: Callable[[], Finding]


def check_refutation(data: bytes) -> Answer:
    """Check a refutation and compute what it is about: 1 where the run is refuted, 0 where not.

    Raises CommandError, exit code 2, for a file that shows nothing: a signature, a path, a value or
    the claim does not hold. Without the packages of the train extra ImportError says which.
    """
    start = time.perf_counter()
    try:
        case = _case(data)
    except AttestError as error:
        raise CommandError(f"no refutation: {error}") from error
    signed = (time.perf_counter() - start) * 1e3
    set_compile_cache()
    from anh_jax.errors import AnhError

    try:
        found = case.judge()
    except (AttestError, AnhError) as error:
        raise CommandError(f"no refutation: {error}") from error
    total = (time.perf_counter() - start) * 1e3
    document: dict[str, Any] = {
        **dict(case.facts),
        "refuted": found.refuted,
        "words": found.words,
        **found.values,
        "milliseconds": round(total, 3),
    }
    rows = [*case.facts, ("why", printable(found.words))]
    times = f"signatures checked in {signed:.1f} ms, {case.part} in {total - signed:.0f} ms"
    if not found.refuted:
        line = toned(f"not refuted: {case.part} is within its bound", Tone.DOUBTFUL)
        return Answer(document, [line, *table(rows), times], ExitCode.PASSED)
    line = toned(f"REFUTED: {case.subject}", Tone.BAD)
    return Answer(document, [line, *table(rows), times], ExitCode.FAILED)


def _case(data: bytes) -> Case:
    value = canonical.decode(data, max_bytes=MAX_BYTES)
    form = value.get("format") if isinstance(value, dict) else None
    match form:
        case step_refutation.FORMAT:
            return _step(step_refutation.StepRefutation.from_bytes(data))
        case init_refutation.FORMAT:
            return _start(init_refutation.InitRefutation.from_bytes(data))
        case recording_refutation.FORMAT:
            return _recording(recording_refutation.RecordingRefutation.from_bytes(data))
        case _:
            return _operator(refutation.Refutation.from_bytes(data))


def _operator(file: refutation.Refutation) -> Case:
    accused = refutation.verify_refutation(file)

    def judge() -> Finding:
        from anh_jax.audit.refutation import judge

        judged = judge(file)
        excess = judged.excess
        return Finding(not excess.accepted, judged.words, {"excess": excess.value})

    facts = [
        ("run", accused.run),
        ("trainer", printable(accused.genesis.trainer)),
        ("step", str(accused.step)),
        ("operator", printable(file.entry.text)),
        ("program", accused.recording.program),
        ("backend", accused.recording.backend),
    ]
    subject = f"step {accused.step} of run {accused.run[:16]}"
    return Case(subject, facts, "the operator", judge)


def _step(file: step_refutation.StepRefutation) -> Case:
    shown = step_refutation.verify_step_refutation(file)

    def judge() -> Finding:
        words = step_refutation.broken_rule(shown, file.path)
        if words or shown.rule != "update":
            return Finding(bool(words), words or "its rule gives it", {})
        from anh_jax.audit.step_refutation import judge_step

        judged = judge_step(file)
        return Finding(not judged.found.accepted, judged.words, {"b": judged.found.value})

    accused = shown.accused
    facts = [
        ("run", accused.run),
        ("trainer", printable(accused.genesis.trainer)),
        ("step", str(accused.row.step)),
        ("tensor", printable(path_text(file.path))),
        ("element", str(file.element)),
        ("rule", shown.rule),
    ]
    subject = f"step {accused.row.step} of run {accused.run[:16]}"
    return Case(subject, facts, "the update of one element", judge)


def _start(file: init_refutation.InitRefutation) -> Case:
    shown = init_refutation.verify_init_refutation(file)

    def judge() -> Finding:
        from anh_jax.audit.init_refutation import judge_init

        words = judge_init(file).words
        return Finding(bool(words), words or f"{shown.name}: as init gives it", {})

    facts = [
        ("run", shown.run),
        ("trainer", printable(shown.genesis.trainer)),
        ("step", "0"),
        ("tensor", printable(shown.name)),
        ("element", str(file.element)),
    ]
    return Case(f"state 0 of run {shown.run[:16]}", facts, "one element of init", judge)


def _recording(file: recording_refutation.RecordingRefutation) -> Case:
    shown = recording_refutation.verify_recording_refutation(file)

    def judge() -> Finding:
        from anh_jax.audit.recording_refutation import judge_recording

        judged = judge_recording(file)
        return Finding(judged.refuted, judged.words, {})

    accused = shown.accused
    facts = [
        ("run", accused.run),
        ("trainer", printable(accused.genesis.trainer)),
        ("step", str(accused.step)),
        ("operator", printable(file.entries[0].entry.text)),
        ("program", accused.recording.program),
        ("shows", {"order": "another order", "operand": "an operand", "end": "the end"}[file.kind]),
    ]
    subject = f"the recording of step {accused.step} of run {accused.run[:16]}"
    return Case(subject, facts, "the wiring", judge)
