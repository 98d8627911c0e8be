"""What `anh bisect` prints, as JSON values and as lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anh_jax.audit.bisect import FirstStep, Searched
from anh_jax.audit.operator import Disputed
from anh_jax.audit.parting import Parted
from anh_jax.audit.scan import Scanned
from launch.bisecting import SearchedRun, WrongStart, worst
from launch.errors import ExitCode
from launch.output import Tone, printable, table, toned
from launch.recordings import Followed, RecordedStep
from launch.run_difference import Difference
from launch.step_refuting import Written

_SHOWN_EXAMPLES = 8
_CODES = {
    "pass": ExitCode.PASSED,
    "refuted": ExitCode.FAILED,
    "withheld": ExitCode.FAILED,
    "unattestable": ExitCode.COULD_NOT_RUN,
}
_VERDICT_CODES = {
    "refuted": ExitCode.FAILED,
    "contradicts": ExitCode.FAILED,
    "elsewhere": ExitCode.FAILED,
    "holds": ExitCode.PASSED,
    "undecided": ExitCode.COULD_NOT_RUN,
    "opening needed": ExitCode.COULD_NOT_RUN,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer in both forms, and what the command exits with."""

    document: dict[str, Any]
    lines: Sequence[str]
    exit_code: ExitCode


def searched(run: SearchedRun, directory: Path) -> Answer:
    """Say which step of a run is the first that does not follow, and where its refutation lies."""
    match run.found:
        case Searched():
            answer = _halved(run.found, directory)
        case Scanned():
            answer = _scanned(run.found)
        case WrongStart(words):
            line = toned(f"REFUTED: {words}", Tone.BAD)
            answer = Answer({"first": None, "start": words}, [line], ExitCode.FAILED)
    return _with_file(answer, run.written)


def _with_file(answer: Answer, written: Written | None) -> Answer:
    if written is None:
        return answer
    file = None if written.file is None else str(written.file)
    document = {**answer.document, "file": file, "noFile": written.words}
    more = f"  no refutation file: {printable(written.words)}"
    if file is not None:
        more = f"  refutation: {file}; anybody checks it: anh verify {file}"
    return Answer(document, [*answer.lines, more], answer.exit_code)


def _scanned(found: Scanned) -> Answer:
    where, first, unseen = found.stretch, found.first, len(found.unseen)
    document: dict[str, Any] = {
        "from": where.start,
        "to": where.stop,
        "stepsJudged": found.judged,
        "stepsUnattestable": list(found.unseen),
        "first": None if first is None else _step_document(first),
    }
    rows = [("judged", f"{found.judged:,} steps within bounds, in order: no bits to compare")]
    if unseen:
        rows += [("not judged", f"{unseen:,} steps; the first: {printable(found.reason)}")]
    if first is not None:
        lines = [_headline(first), *table([*_facts(first), *rows])]
        return Answer(document, lines, ExitCode.FAILED)
    if unseen:
        line = toned("unattestable: nothing can be said of some steps here", Tone.DOUBTFUL)
        return Answer(document, [line, *table(rows)], ExitCode.COULD_NOT_RUN)
    line = toned(f"steps {where.start + 1} to {where.stop} each follow within bounds", Tone.GOOD)
    return Answer(document, [line, *table(rows)], ExitCode.PASSED)


def _halved(found: Searched, directory: Path) -> Answer:
    where, first = found.stretch, found.first
    document: dict[str, Any] = {
        "from": where.start,
        "to": where.stop,
        "looks": found.looks,
        "stepsExecuted": found.executed,
        "first": None if first is None else _step_document(first),
    }
    cost = [("looks", f"{found.looks} stretches, {found.executed:,} steps re-executed")]
    if first is None:
        line = toned(f"steps {where.start + 1} to {where.stop} all follow", Tone.GOOD)
        return Answer(document, [line, *table(cost)], ExitCode.PASSED)
    lines = [_headline(first), *table([*_facts(first), *cost])]
    if first.result.outcome == "refuted" and "gradient root" in first.result.differs:
        lines += [f"  inside the step: anh bisect {directory} --record-step {first.result.step}"]
    return Answer(document, lines, _CODES[first.result.outcome])


def parted(found: Parted | Difference | None, second: Path) -> Answer:
    """Say at which step two runs part and which of them is wrong."""
    if found is None:
        return Answer({"step": None}, [toned("the runs do not part", Tone.GOOD)], ExitCode.PASSED)
    if isinstance(found, Difference):
        names = [name for name, changes in found.sections().items() if changes]
        step = None if found.apart is None else found.apart.step
        lines = [f"not one contract: {', '.join(names)} differ; 'anh diff' says what and where"]
        return Answer({"step": step, "differs": names}, lines, ExitCode.FAILED)
    document = {
        "step": found.step,
        "stepsCompared": found.compared,
        "runs": [_step_document(side) for side in found.runs],
    }
    lines = [f"the runs part at step {found.step} of {found.compared:,}; judged from state "
             f"{found.step - 1}, which both have"]  # fmt: skip
    for name, side in zip(("D", str(second)), found.runs, strict=True):
        lines += [f"{printable(name)}: {_headline(side)}"]
    lines += table(_facts(found.runs[0])[1:])
    return Answer(document, lines, _CODES[worst(found.runs)])


def recorded(written: RecordedStep, directory: Path) -> Answer:
    """Say where a recording lies and what was signed."""
    said = written.said
    document = {
        "folder": str(written.folder),
        "step": said.step,
        "entries": said.count,
        "root": said.root,
        "backend": said.backend,
    }
    lines = [
        f"step {said.step} recorded: {said.count:,} operators, root {said.root[:16]}, signed by "
        "the run key",
        f"  in {written.folder}; follow it: anh bisect {directory} --recording {written.folder}",
    ]
    return Answer(document, lines, ExitCode.PASSED)


def followed(found: Followed) -> Answer:
    """Say what following a recording showed."""
    disputed = found.disputed
    document: dict[str, Any] = {
        "step": found.step,
        "verdict": disputed.verdict,
        "words": disputed.words,
        "compared": disputed.compared,
        "rounded": disputed.rounded,
        "operator": None if disputed.entry is None else disputed.entry.name,
        "iterations": None if disputed.entry is None else list(disputed.entry.iterations),
        "file": None,
    }
    lines = [_verdict_line(found.step, disputed)]
    lines += table(
        [
            ("why", printable(disputed.words)),
            ("compared", f"{disputed.compared:,} operators, {disputed.rounded:,} rounded otherwise"
             " within their bound"),
        ]
    )  # fmt: skip
    if disputed.verdict == "opening needed" and disputed.entry is not None:
        name = disputed.entry.name
        lines += [f"  ask the trainer to record again with --show '{name}'"]
    return _with_file(Answer(document, lines, _VERDICT_CODES[disputed.verdict]), found.written)


def _verdict_line(step: int, disputed: Disputed) -> str:
    words = {
        "refuted": "REFUTED: an operator of step {} is outside its worst-case bound",
        "contradicts": "REFUTED: the recording of step {} contradicts itself or the run",
        "elsewhere": "REFUTED: the recording of step {} does not end in what its row commits",
        "holds": "step {} holds: no operator is outside its bound",
        "undecided": "undecided: step {} cannot be judged here",
        "opening needed": "undecided: values of step {} are not shown",
    }[disputed.verdict].format(step)
    code = _VERDICT_CODES[disputed.verdict]
    tones = {ExitCode.PASSED: Tone.GOOD, ExitCode.FAILED: Tone.BAD}
    return toned(words, tones.get(code, Tone.DOUBTFUL))


def _headline(first: FirstStep) -> str:
    result = first.result
    if result.outcome == "pass":
        return toned(f"step {result.step} passes: {result.words}", Tone.GOOD)
    tone = Tone.BAD if result.outcome == "refuted" else Tone.DOUBTFUL
    word = "REFUTED" if result.outcome == "refuted" else result.outcome
    return toned(f"{word}: step {result.step}: {printable(result.words)}", tone)


def _facts(first: FirstStep) -> list[tuple[str, str]]:
    shown = ", ".join(map(str, first.examples[:_SHOWN_EXAMPLES]))
    more = len(first.examples) - _SHOWN_EXAMPLES
    examples = f"{shown} and {more:,} more" if more > 0 else shown
    facts = [("differs", ", ".join(first.result.differs) or "nothing"), ("batch", examples)]
    if len(first.hosts) > 1:
        rows = (f"host {host.rank} rows {host.start} to {host.stop - 1}" for host in first.hosts)
        facts.append(("hosts", "; ".join(rows)))
    return facts


def _step_document(first: FirstStep) -> dict[str, Any]:
    return {
        **first.result.document(),
        "examples": list(first.examples),
        "hosts": [
            {"rank": host.rank, "start": host.start, "stop": host.stop} for host in first.hosts
        ],
    }
