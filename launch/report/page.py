"""The report as HTML: what happened, how far it was checked, and what that does not say."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from launch.report.elements import definitions, duration, section, table
from launch.report.facts import RunFacts, decimal, median
from launch.report.plot import Point, Series, line_chart, threshold_bar
from launch.report.style import STYLE
from launch.unsigned_run import NOTHING_SIGNED

NON_CLAIMS = (
    "It is no proof of computation: nobody proved every operation, steps are sampled and redone.",
    "A signature says who said it, not that it is true.",
    "It does not hold if every auditor that the policy names works with the trainer.",
    "Sampling is probabilistic: a single bad step is likely to escape a small sample.",
    "Measured tolerances speak of the hardware they were measured on, and of no other.",
)
# Where a page may load from: nowhere. Styles are inline, and there is no script.
_CSP = "default-src 'none'; style-src 'unsafe-inline'"


def render(facts: RunFacts) -> str:
    """Write the whole page; every text that a file of the run holds is escaped."""
    parts = [
        _header(facts),
        _tiles(facts),
        _troubles(facts),
        section("Training", _charts(facts)),
        section("How far it was checked", _assurance(facts)),
        section("Audits", _audits(facts)) if facts.audits else "",
        section("Contract", _contract(facts)),
        section("Attempts and environment", _attempts(facts)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_CSP}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(facts.name)} - run report</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}<footer>Written by <code>anh report</code>. One file, no "
        "script, no network.</footer></main></body></html>\n"
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands, in one phrase, and its tone: good, doubt or bad."""

    words: str
    tone: str


def state_of(facts: RunFacts) -> Standing:
    """Say where the run stands."""
    if facts.judgement is not None and facts.judgement.exit_code != 0:
        return Standing("verification failed", "bad")
    if facts.final is not None:
        return Standing("finished", "good")
    done, steps = facts.steps_done, facts.contract.steps
    unfinished = f"unfinished: {done} of {steps} steps"
    if facts.unsigned:
        far = "finished" if done >= steps else unfinished
        return Standing(f"{far}; nothing was signed (attest.mode: off)", "doubt")
    return Standing(unfinished, "doubt")


def _header(facts: RunFacts) -> str:
    standing = state_of(facts)
    if facts.judgement is not None and facts.judgement.lines:
        assurance = escape(facts.judgement.lines[0])
    elif facts.unsigned:
        assurance = NOTHING_SIGNED
    else:
        assurance = "no run proof yet: nothing here has been checked by anyone else"
    return (
        f'<p class="over">Run report</p><h1>{escape(facts.name)} '
        f'<span class="chip {standing.tone}">{escape(standing.words)}</span></h1>'
        f'<p class="assurance">{assurance}</p>'
    )


def _tiles(facts: RunFacts) -> str:
    metrics = facts.metrics
    seconds = [point.value for point in metrics.seconds]
    digests = [point.value for point in metrics.digest_seconds]
    tiles = [(f"{facts.steps_done:,}", f"of {facts.contract.steps:,} steps")]
    if metrics.loss:
        tiles.append((f"{metrics.loss[-1].value:.4g}", f"loss at step {metrics.loss[-1].step:,}"))
    if metrics.holdout_accuracy:
        tiles.append((f"{metrics.holdout_accuracy[-1].value:.2%}", "hold-out accuracy"))
    if seconds:
        tiles.append((duration(median(seconds)), "median step"))
    total = math.fsum(value for value in seconds if math.isfinite(value))
    if digests and total > 0:
        share = math.fsum(value for value in digests if math.isfinite(value)) / total
        tiles.append((f"{share:.1%}", "of the time digests run, beside steps"))
    if facts.attempts:
        tiles.append((str(len(facts.attempts)), "attempt" + "s" * (len(facts.attempts) > 1)))
    if facts.audits:
        tiles.append((str(len(facts.audits)), "audit" + "s" * (len(facts.audits) > 1)))
    body = "".join(
        f'<div class="tile"><b>{escape(figure)}</b><span>{escape(what)}</span></div>'
        for figure, what in tiles
    )
    return f'<div class="tiles">{body}</div>'


def _troubles(facts: RunFacts) -> str:
    if not facts.troubles:
        return ""
    items = "".join(f"<li>{escape(trouble)}</li>" for trouble in facts.troubles)
    return section("Could not be read", f'<div class="card"><ul>{items}</ul></div>')


def _charts(facts: RunFacts) -> str:
    metrics, rows = facts.metrics, facts.rows
    resumed = [attempt.step for attempt in facts.attempts if attempt.number > 1]
    # A row commits the sum over examples, metrics.jsonl the mean.
    weighed = [row for row in rows if decimal(row.scalars.weight)]
    loss = metrics.loss or tuple(
        Point(row.step, decimal(row.loss) / decimal(row.scalars.weight)) for row in weighed
    )
    norms = tuple(Point(row.step, decimal(row.scalars.global_norm)) for row in rows)
    bounds = tuple(Point(row.step, decimal(row.bound)) for row in rows if row.bound is not None)
    charts = [line_chart("Loss", [Series("loss", loss)], resumed=resumed)]
    # One point says no more than its tile above.
    if len(metrics.holdout_accuracy) > 1:
        series = [Series("accuracy", metrics.holdout_accuracy, 3)]
        charts.append(line_chart("Hold-out accuracy", series, resumed=resumed))
    if metrics.seconds:
        series = [
            Series("step", metrics.seconds),
            Series("digest", tuple(p for p in metrics.digest_seconds if p.value > 0), 2),
        ]
        charts.append(line_chart("Seconds a step", series, resumed=resumed))
    if norms:
        charts.append(line_chart("Gradient norm", [Series("norm", norms)], resumed=resumed))
    if len({point.value for point in bounds}) > 1:
        title = "Declared relative bound"
        charts.append(line_chart(title, [Series("bound", bounds, 2)], resumed=resumed))
    return f'<div class="charts">{"".join(charts)}</div>'


def _assurance(facts: RunFacts) -> str:
    judgement = facts.judgement
    if facts.unsigned:
        said = f"<p>There is no <code>run.proof</code>: {NOTHING_SIGNED}.</p>"
    elif judgement is None:
        said = "<p>There is no <code>run.proof</code> yet. It is written when the run ends.</p>"
    else:
        first, *rest = judgement.lines
        # The verdict's lines are a label of ten columns, then the words.
        pairs = [(line[:10].strip(), line[10:]) for line in rest]
        said = (
            f"<p><strong>{escape(first)}</strong></p>{definitions(pairs)}"
            '<p class="note">checked in '
            f"{judgement.milliseconds:.0f} ms under the run's own policy; yours decides</p>"
            "<pre>anh verify run.proof --policy mine.toml</pre>"
        )
    if facts.line is not None and (facts.line.stale or facts.line.divergences):
        said += (
            f"<p>{len(facts.line.stale)} rows lie on branches of earlier attempts; "
            f"{len(facts.line.divergences)} of them diverge from the line.</p>"
        )
    claims = "".join(f"<li>{escape(claim)}</li>" for claim in NON_CLAIMS)
    return (
        f'<div class="cards"><div class="card"><h3>What was checked</h3>{said}</div>'
        f'<div class="card"><h3>What this does not say</h3><ul>{claims}</ul></div></div>'
    )


def _audits(facts: RunFacts) -> str:
    cards: list[str] = []
    for audit in facts.audits:
        counts, worst = audit.counts, audit.worst
        tone = "bad" if counts.refuted else "good"
        bars = [
            threshold_bar(name, None if value is None else decimal(value))
            for name, value in (
                ("A, tensor", worst.a),
                ("A, block", worst.a_row),
                ("zeros", worst.zeros),
                ("A2, effect", worst.a2),
                ("B, update", worst.b),
                ("walk", worst.walk),
            )
        ]
        facts_list = definitions(
            [
                ("sample", f"{audit.sample}, k = {audit.k}"),
                ("re-executed", f"{audit.steps} of {facts.contract.steps} steps ({audit.method})"),
                ("init", audit.init),
                ("export", audit.export),
                ("line", audit.line),
                ("walk", audit.walk),
                ("drift", audit.drift),
            ]
        )
        cards.append(
            f'<div class="card"><h3>{escape(audit.auditor)} <span class="chip {tone}">'
            f"{counts.pass_} passed, {counts.refuted} refuted, {counts.unattestable} unattestable, "
            f"{counts.withheld} withheld</span></h3>{facts_list}"
            f'<p class="note">worst statistic over its tolerance; the mark is the limit 1</p>'
            f"{''.join(bars)}</div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _contract(facts: RunFacts) -> str:
    contract, numerics = facts.contract, facts.contract.numerics
    terms = definitions(
        [
            ("contract", contract.id),
            ("run", facts.run or "no genesis yet"),
            ("trainer", facts.genesis.trainer if facts.genesis is not None else "-"),
            ("steps", f"{contract.steps:,} of {contract.batch_size:,} examples"),
            ("seed", f"{contract.seed} ({contract.seed_rule}: chosen by the author)"),
            ("data", f"{contract.data.examples:,} examples"),
            ("data root", contract.data.root),
            ("optimizer", f"{contract.optimizer.name} ({contract.optimizer.kind})"),
        ]
    )
    rules = definitions(
        [
            ("numerics", numerics.class_),
            ("c, c row", f"{decimal(numerics.c):g}, {decimal(numerics.c_row):g}"),
            ("cap", f"{decimal(numerics.cap):g}"),
            ("declared", _declared(facts)),
            ("A2, cold", f"{decimal(numerics.a2):g}, {_cold(numerics.a2_cold)}"),
            ("retention", f"{contract.retention.window}, {contract.retention.deadline}"),
            ("gradient", contract.programs.gradient),
            ("update", contract.programs.update),
        ]
    )
    return (
        f'<div class="cards"><div class="card"><h3>Terms</h3>{terms}</div>'
        f'<div class="card"><h3>Rules</h3>{rules}</div>{_properties(facts)}</div>'
    )


def _cold(value: str | None) -> str:
    return "does not apply" if value is None else f"{decimal(value):g}"


def _declared(facts: RunFacts) -> str:
    bounds = [decimal(row.bound) for row in facts.rows if row.bound is not None]
    if not bounds:
        return "no step declares a bound"
    low, high = f"{min(bounds):.3g}", f"{max(bounds):.3g}"
    return f"{low} in every step" if low == high else f"{low} to {high} (see the plot)"


def _properties(facts: RunFacts) -> str:
    if not facts.contract.properties:
        return ""
    said = {(found.name, found.correct, found.total, found.verdict) for found in facts.properties}
    rows = [
        (rule.name, f"at least {rule.numerator}/{rule.denominator}", _judged(rule.name, said))
        for rule in facts.contract.properties
    ]
    return (
        '<div class="card"><h3>Properties</h3>'
        f"{table(('property', 'promised', 'judged'), rows)}</div>"
    )


def _judged(name: str, said: Iterable[tuple[str, int, int, str]]) -> str:
    found = [f"{verdict}: {c:,} of {n:,}" for rule, c, n, verdict in sorted(said) if rule == name]
    return "; ".join(found) or "not judged yet"


def _attempts(facts: RunFacts) -> str:
    rows = [
        (
            str(attempt.number),
            attempt.reason,
            str(attempt.step),
            f"{attempt.mesh.data} x {attempt.mesh.fsdp} x {attempt.mesh.tensor}",
            str(attempt.processes),
        )
        for attempt in facts.attempts
    ]
    heads = ("attempt", "reason", "from step", "mesh (data x fsdp x tensor)", "processes")
    attempts = table(heads, rows) if rows else '<p class="note">no attempt yet</p>'
    environment = sorted(facts.genesis.environment.items()) if facts.genesis is not None else []
    executed = sorted(facts.genesis.execution_class.items()) if facts.genesis is not None else []
    pairs = [(name, str(value)) for name, value in (*environment, *executed)]
    return (
        f'<div class="card wide">{attempts}<details><summary>environment in genesis</summary>'
        f"{definitions(pairs)}</details></div>"
    )
