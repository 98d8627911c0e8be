"""What `anh audit` prints: a verdict first, then the numbers it rests on."""

from pathlib import Path
from typing import Any

from anh_jax.audit.results import Check, StepResult, count
from attest.sample import miss_probability, single_escape
from attest.schema import json_name
from attest.verdict import Coverage
from launch.auditing import Audited
from launch.errors import ExitCode
from launch.output import Tone, printable, table, toned

# The fraction of bad steps for which the miss probability is printed, as in a policy's default.
_BAD_FRACTION = 0.01
_SHOWN = 12
_STATISTICS = {"A": "a", "A row": "a_row", "zeros": "zeros", "A2": "a2", "B": "b", "walk": "walk"}


def exit_code(audited: Audited) -> ExitCode:
    """Return 1 where something was refuted or withheld, 2 where it could not be judged here.

    3 where the run key signed a state otherwise than its row.
    """
    if audited.evidence.equivocation is not None:
        return ExitCode.EQUIVOCATION
    outcomes = {result.outcome for result in audited.findings.results}
    checks = _checks(audited)
    verdicts = {check.verdict for check in checks.values()}
    failed = "fail" in verdicts or audited.findings.drift.verdict == "fail"
    if outcomes & {"refuted", "withheld"} or failed or audited.artifact:
        return ExitCode.FAILED
    if "unattestable" in outcomes or _unchecked(audited):
        return ExitCode.COULD_NOT_RUN
    return ExitCode.PASSED


def headline(audited: Audited) -> str:
    """Return the verdict in one line."""
    results = audited.findings.results
    counts = count(results)
    failed = [f"{n} {c.words}" for n, c in _checks(audited).items() if c.verdict == "fail"]
    refuted = [f"step {r.step}: {r.words}" for r in results if r.outcome == "refuted"]
    if audited.findings.drift.verdict == "fail":
        failed.append(f"drift {audited.findings.drift.words}")
    if refuted or failed:
        return f"REFUTED: {(failed + refuted)[0]}"
    if counts["withheld"]:
        first = next(r for r in results if r.outcome == "withheld")
        words = f"{counts['withheld']:,} of {len(results):,} steps withheld"
        return f"FAILED: {words}; step {first.step:,}: {first.words}"
    if audited.artifact:
        return f"FAILED: {audited.artifact} is not the file that the final record names"
    if exit_code(audited) is ExitCode.COULD_NOT_RUN:
        return f"not refuted, and not covered: {'; '.join(_not_judged(audited))}"
    words = f"passed: {counts['pass']:,} of {len(results):,} steps"
    return f"{words} within bounds" if _bounded(audited) else words


def document(audited: Audited) -> dict[str, Any]:
    """Return the audit for programs."""
    findings, receipt = audited.findings, audited.receipt
    return {
        "verdict": headline(audited),
        "exitCode": int(exit_code(audited)),
        "run": audited.run,
        "auditor": audited.who.operator,
        "sample": audited.sample.kind,
        "selfSampled": _self_sampled(audited),
        "sources": list(audited.sources),
        "k": audited.sample.k,
        "steps": list(audited.sample.steps),
        "method": receipt.method,
        "counts": dict(count(findings.results)),
        "worst": {json_name(f): getattr(receipt.worst, f) for f in _STATISTICS.values()},
        "loose": audited.loose,
        "results": [result.document() for result in findings.results],
        "checks": {
            name: {"verdict": check.verdict, "words": check.words}
            for name, check in _checks(audited).items()
        },
        "properties": [
            {"name": p.name, "correct": p.correct, "total": p.total, "verdict": p.verdict}
            for p in audited.properties
        ],
        "indices": list(audited.indices),
        "resultsRoot": receipt.results_root,
        "resultsFile": str(audited.results),
        "proof": None if audited.proof is None else str(audited.proof),
        "client": audited.client,
        "seconds": round(findings.seconds, 3),
        "secondsPerStep": round(seconds_per_step(audited), 4),
        "notes": list(findings.notes),
        "evidence": [str(path) for path in _evidence(audited)],
    }


def lines(audited: Audited) -> list[str]:
    """Return the audit for people."""
    code = exit_code(audited)
    tone = {ExitCode.PASSED: Tone.GOOD, ExitCode.FAILED: Tone.BAD}.get(code, Tone.DOUBTFUL)
    found = [toned(printable(headline(audited)), tone)]
    pairs = [
        ("run", audited.run),
        ("auditor", audited.who.operator),
        ("steps", _steps(audited)),
        ("sample", _sample(audited)),
        *((name, f"{c.verdict}: {c.words}") for name, c in _checks(audited).items()),
        ("drift", f"{audited.receipt.drift}: {audited.findings.drift.words}"),
        *(("property", text) for text in _properties(audited)),
        *(("coverage", text) for text in _coverage(audited)),
        ("seconds", f"{seconds_per_step(audited):.3f} for a step, {audited.findings.seconds:.1f} "
                    "in all, compilation included"),
        ("receipt", f"index {audited.indices[0]:,} of the log; results in {audited.results}"),
        ("run proof", _proof(audited)),
    ]  # fmt: skip
    pairs += [("tolerances", audited.loose)] if audited.loose else []
    pairs += [("client says", audited.client)] if audited.client else []
    pairs += [("evidence", str(path)) for path in _evidence(audited)]
    pairs += [("note", note) for note in audited.findings.notes]
    found += [printable(line) for line in table(pairs)]
    bad = [r for r in audited.findings.results if r.outcome != "pass"]
    found += [printable(_line(result)) for result in bad[:_SHOWN]]
    found += [f"  ... and {len(bad) - _SHOWN:,} more"] if len(bad) > _SHOWN else []
    return found


def _evidence(audited: Audited) -> list[Path]:
    both = (audited.evidence.equivocation, audited.evidence.withheld)
    return [path for path in both if path is not None]


def seconds_per_step(audited: Audited) -> float:
    """Return the median seconds of a sampled step, replay up to it included."""
    seconds = sorted(audited.findings.step_seconds)
    return seconds[len(seconds) // 2] if seconds else 0.0


def _checks(audited: Audited) -> dict[str, Check]:
    findings = audited.findings
    return {
        "init": findings.init,
        "line": findings.line,
        "export": findings.export,
        "walk": findings.walk,
    }


def _unchecked(audited: Audited) -> list[str]:
    """List the checks of the run as a whole that were due and not made, each with the reason."""
    # A walk is only looked for where updates were weighed, two of them at least.
    due = {name: check for name, check in _checks(audited).items() if name != "walk"}
    return [f"{n} ({c.words})" for n, c in due.items() if c.verdict == "not checked"]


def _not_judged(audited: Audited) -> list[str]:
    """Say which steps could not be judged here, and which checks were not made."""
    counts, total = count(audited.findings.results), len(audited.findings.results)
    if counts["unattestable"]:
        words = [f"{counts['unattestable']:,} of {total:,} steps could not be judged here"]
    else:
        words = [f"{counts['pass']:,} of {total:,} steps passed"]
    unchecked = _unchecked(audited)
    return [*words, f"not checked: {', '.join(unchecked)}"] if unchecked else words


def _bounded(audited: Audited) -> bool:
    return audited.receipt.method == "bounded"


def _self_sampled(audited: Audited) -> bool:
    """Tell whether the trainer could foresee or choose the sample, or audits himself."""
    if audited.sample.kind == "chosen":
        return False
    return audited.who.operator == audited.trainer or set(audited.sources) <= {audited.trainer}


def _steps(audited: Audited) -> str:
    counts = count(audited.findings.results)
    words = ", ".join(f"{number:,} {name}" for name, number in counts.items())
    worst = audited.receipt.worst
    values = {name: getattr(worst, field) for name, field in _STATISTICS.items()}
    numbers = [f"{n} {float.fromhex(v):.3g}" for n, v in values.items() if v is not None]
    return f"{words}{'; worst ' + ', '.join(numbers) if numbers else ''}"


def _sample(audited: Audited) -> str:
    sample = audited.sample
    if sample.kind == "chosen":
        return f"{sample.k:,} steps chosen by hand: no sample, whoever trained"
    added = len(sample.steps) - sample.k
    words = f"{sample.k:,} steps drawn" + (f", {added:,} always added" if added > 0 else "")
    if _self_sampled(audited):
        return f"self-sampled: {words}; the trainer could foresee or choose them"
    return f"{words} by nonces of {', '.join(audited.sources)}"


def _properties(audited: Audited) -> list[str]:
    if not audited.properties:
        return ["none evaluated"]
    return [
        f"{p.name} {p.verdict}: {p.correct:,} of {p.total:,} right, at least "
        f"{p.threshold.numerator}/{p.threshold.denominator} promised (margin {p.margin:,})"
        for p in audited.properties
    ]


def _coverage(audited: Audited) -> tuple[str, ...]:
    """Return both probabilities, always together; of a sample that nobody could foresee only."""
    if _self_sampled(audited) or audited.sample.kind == "chosen" or audited.loose:
        return ("no step counts as checked for others: no probability is stated",)
    counts = count(audited.findings.results)
    total, lost = audited.total, sum(counts.values()) - counts["pass"]
    # The drawn steps alone: those always added are no part of the sample.
    passed = max(0, audited.sample.k - lost)
    return Coverage(
        steps=total,
        passed=passed,
        bad_fraction=_BAD_FRACTION,
        tries=0,
        miss=miss_probability(total, _BAD_FRACTION, passed),
        escape=single_escape(total, passed),
        lost=lost,
    ).text()


def _proof(audited: Audited) -> str:
    if audited.proof is None:
        return "not rebuilt: the log's keys are not here; its operator publishes the receipt"
    return f"{audited.proof} ({audited.proof.stat().st_size:,} bytes)"


def _line(result: StepResult) -> str:
    return f"  step {result.step:,} {result.outcome}: {result.words}"
