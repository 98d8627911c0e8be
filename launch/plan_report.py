"""A digest plan as text and as JSON: each number with its basis and where it is from."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from anh_jax.digest.cost import TreeCost, opening_bytes
from anh_jax.digest.forecast import Basis, Figure, Forecast
from attest.digest_tree import path_text
from launch.digest_plan import Case, DigestPlan, what_if
from launch.output import printable

_PREFIXES = ((1e-9, "n"), (1e-6, "u"), (1e-3, "m"), (1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"))
_LARGE = ((1e12, "T"), (1e15, "P"), (1e18, "E"), (1e21, "Z"), (1e24, "Y"))


@dataclass(frozen=True)
class Entry:
    """Name one number: `key` for programs, `label` for people, its unit beside it."""

    key: str
    label: str
    unit: str
    figure: Figure

    def document(self) -> dict[str, Any]:
        """Return the number for programs."""
        figure = self.figure
        return {
            "value": figure.value,
            "unit": self.unit,
            "basis": figure.basis.label,
            "source": figure.source,
        }


def document(plan: DigestPlan) -> dict[str, Any]:
    """Return the plan for programs."""
    made = plan.forecast()
    numbers = (*_inputs(plan), *_results(plan, made), *_sizes(plan, made))
    return {
        "config": str(plan.request.config),
        "hardware": plan.request.hardware,
        "chips": plan.work.chips,
        "alg": plan.alg,
        "figures": {entry.key: entry.document() for entry in numbers},
        "policy": f"every {made.every}",
        "configured": plan.run.experiment.attest.digest,
        "whatIf": [_case_document(case) for case in what_if(plan)],
        "notes": _notes(plan, made),
    }


def lines(plan: DigestPlan) -> list[str]:
    """Return the plan for people, in aligned lines."""
    made, request = plan.forecast(), plan.request
    unit = plan.machine.unit + ("s" if request.chips > 1 else "")
    share = made.share_at(made.every)
    advice = f"{_policy(made.every)}; {quantity(share.value, 'share')} of a step"
    shown = [
        f"{request.config} on {request.chips:,} {unit} ({request.hardware}), {plan.alg}",
        *_entries(_inputs(plan)),
        "predicted",
        *_entries(_results(plan, made)),
        f"recommended: {advice}, {share.basis.label}",
        "digests and openings",
        *_entries(_sizes(plan, made)),
        *_cases(what_if(plan)),
        *(f"note: {words}" for words in _notes(plan, made)),
    ]
    return [printable(line) for line in shown]


def quantity(value: float, unit: str) -> str:
    """Write a number with its unit: three digits and a prefix.

    Units are `s`, `B` or others that take prefixes; `share`, written in percent or, from ten on, as
    a multiple; or nothing, for a count, written whole.
    """
    if unit == "share":
        return f"{value:.2%}" if value < 10 else f"{value:,.0f}x"
    if not unit:
        return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.3g}"
    if value == 0:
        return f"0 {unit}"
    fitting = [pair for pair in (*_PREFIXES, *_LARGE) if pair[0] <= value * 1.0005]
    scale, prefix = fitting[-1] if fitting else _PREFIXES[0]
    return f"{value / scale:.3g} {prefix}{unit}"


def _policy(every: int) -> str:
    if every == 1:
        return "attest.digest='every 1', gradient and state at every step"
    return f"attest.digest='every {every}', gradient at every step and state every {every}"


def _inputs(plan: DigestPlan) -> tuple[Entry, ...]:
    run, work, rates, unit = plan.run, plan.work, plan.rates, plan.machine.unit

    def counted(value: float, source: str) -> Figure:
        return Figure(value, Basis.COUNTED, source)

    def tree(key: str, label: str, cost: TreeCost) -> tuple[Entry, Entry]:
        size = counted(cost.size, f"{cost.tensors} tensors")
        busiest = counted(cost.chip_size, f"each of {work.chips:,} {unit}s")
        return (
            Entry(f"{key}Bytes", label, "B", size),
            Entry(f"{key}BytesPerChip", f"{label}, hashed a {unit}", "B", busiest),
        )

    flops = Figure(work.flops, plan.tokens.basis, run.rule)
    numbers = (
        Entry("parameters", "parameters", "", counted(run.parameters, "trainable numbers")),
        Entry("tokens", f"{run.unit} a step", "", plan.tokens),
        Entry("flops", "arithmetic a step", "FLOP", flops),
        *tree("state", "state", work.state),
        *tree("gradient", "gradient", work.gradient),
        Entry("peak", f"peak a {unit}", "FLOP/s", rates.peak),
        Entry("utilisation", "utilisation", "", plan.utilisation),
        Entry("rate", f"digest rate a {unit}", "B/s", rates.rate),
    )
    if not rates.per_tensor.value:
        return numbers
    return (*numbers, Entry("perTensor", "each tensor besides", "s", rates.per_tensor))


def _results(plan: DigestPlan, made: Forecast) -> list[Entry]:
    found = [
        Entry("step", "step", "s", made.step),
        Entry("stateDigest", "state digest", "s", made.state),
        Entry("gradientDigest", "gradient digest", "s", made.gradient),
        Entry("row", "signing the row", "s", made.row),
        Entry("shareEveryStep", "share of a step, every 1", "share", made.share_at(1)),
    ]
    if made.every > 1:
        label = f"share of a step, every {made.every}"
        found.append(Entry("shareRecommended", label, "share", made.share_at(made.every)))
    return found


def _sizes(plan: DigestPlan, made: Forecast) -> tuple[Entry, ...]:
    headers, work = plan.run.state, plan.work
    place = max(range(len(headers)), key=lambda at: headers[at].tile_bytes)
    largest = headers[place]

    def a_step(state: float, gradient: float, source: str) -> Figure:
        return Figure(gradient + state / made.every, plan.forecast().step.basis, source)

    size = opening_bytes(headers, place, alg=plan.alg)
    words = f"{path_text(largest.path)}, a tile of {quantity(largest.tile_bytes, 'B')}"
    tiles = Figure(work.state.tiles, Basis.COUNTED, "of the state")
    hashes = a_step(work.state.hashes, work.gradient.hashes, "under the recommended policy")
    crossing = a_step(
        work.state.gathered, work.gradient.gathered, f"digests, by each {plan.machine.unit}"
    )
    return (
        Entry("tiles", "tiles", "", tiles),
        Entry("openingBytes", "largest opening", "B", Figure(size, Basis.COUNTED, words)),
        Entry("hashesPerStep", "digests a step", "", hashes),
        Entry("gatheredPerStep", "gathered a step", "B", crossing),
    )


def _notes(plan: DigestPlan, made: Forecast) -> list[str]:
    notes = list(plan.machine.notes)
    if made.step.value < made.row.value:
        notes.append(
            "a step this short is bound by its host and not by the chips: let the run measure "
            "itself, attest.digest=auto"
        )
    return notes


def _entries(entries: Iterable[Entry]) -> list[str]:
    rows = [
        (e.label, quantity(e.figure.value, e.unit), e.figure.basis.label, e.figure.source)
        for e in entries
    ]
    return [f"  {line}" for line in _aligned(rows)]


def _cases(cases: tuple[Case, ...]) -> list[str]:
    rows = [("what if", "state", "gradient", "share", "policy", "")]
    for case in cases:
        made, share = case.forecast, case.forecast.share_at(case.forecast.every)
        seconds = (quantity(made.state.value, "s"), quantity(made.gradient.value, "s"))
        words = (quantity(share.value, "share"), f"every {made.every}", share.basis.label)
        rows.append((f"  {case.name}", *seconds, *words))
    return _aligned(rows)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _case_document(case: Case) -> dict[str, Any]:
    made = case.forecast
    share = made.share_at(made.every)
    return {
        "case": case.name,
        "stateSeconds": made.state.value,
        "gradientSeconds": made.gradient.value,
        "share": share.value,
        "policy": f"every {made.every}",
        "basis": share.basis.label,
    }
