"""The cost of a run's digests before anything is trained: what `anh digest --plan` works out."""

import dataclasses
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anh_jax.digest.cost import TreeCost, tree_cost
from anh_jax.digest.forecast import Basis, Figure, Forecast, Machine, Workload, forecast
from anh_jax.experiment import load_experiment
from anh_jax.planned_run import PlannedRun, plan_run
from launch.errors import CommandError
from launch.planned_machine import CPU, TO_HOST, PlannedMachine, planned_machine

_NO_TIME = Figure(0.0, Basis.COUNTED, "one call for each leaf")


@dataclass(frozen=True)
class PlanRequest:
    """Hold what the command line asks for; `tokens` is None for the configuration's own."""

    config: Path
    overrides: tuple[str, ...]
    chips: int
    hardware: str
    tokens: int | None
    utilisation: float


@dataclass(frozen=True)
class Case:
    """One line of the what-if table."""

    name: str
    forecast: Forecast


@dataclass(frozen=True)
class DigestPlan:
    """Hold everything that is printed, for people and for programs."""

    request: PlanRequest
    run: PlannedRun
    machine: PlannedMachine
    work: Workload
    utilisation: Figure
    tokens: Figure

    @property
    def alg(self) -> str:
        """Return the digest algorithm of the configuration."""
        return self.run.experiment.attest.alg

    @property
    def rates(self) -> Machine:
        """Return the hardware's rates with that algorithm."""
        return self.machine.rates[self.alg]

    def forecast(self) -> Forecast:
        """Predict the run as it is configured."""
        return forecast(self.work, self.rates, self.utilisation)


def digest_plan(request: PlanRequest) -> DigestPlan:
    """Derive the plan of a configuration; AnhError or CommandError for what cannot be planned."""
    chips = request.chips
    if chips & (chips - 1):
        below = 1 << (chips.bit_length() - 1)
        raise CommandError(
            f"--chips {chips}: arrays are split over powers of two; use {below} or {2 * below}"
        )
    machine = planned_machine(request.hardware)
    experiment = load_experiment(request.config, request.overrides)
    with _importable(request.config.resolve().parent):
        run = plan_run(experiment)
    tokens = _tokens(request, run)
    state, gradient = (tree_cost(headers, chips=chips) for headers in (run.state, run.gradient))
    if request.hardware == CPU:
        # What every host holds whole needs no exchange.
        state, gradient = (
            dataclasses.replace(_unshared(cost), gathered=0) for cost in (state, gradient)
        )
    work = Workload(
        flops=run.flops * tokens.value / run.tokens,
        state=state,
        gradient=gradient,
        chips=chips,
        longest=run.experiment.checkpoints.every_steps,
        exact=run.experiment.plan.kind == "exported",
    )
    utilisation = Figure(request.utilisation, Basis.ASSUMED, "--mfu: share of the peak")
    return DigestPlan(request, run, machine, work, utilisation, tokens)


@contextmanager
def _importable(folder: Path) -> Generator[None]:
    """Let a configuration name what lies beside it, as the script of one's own loop does."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _tokens(request: PlanRequest, run: PlannedRun) -> Figure:
    if request.tokens is None:
        return Figure(run.tokens, Basis.COUNTED, "of the configuration")
    return Figure(request.tokens, Basis.ASSUMED, "--tokens-per-step; arithmetic in proportion")


def what_if(plan: DigestPlan) -> tuple[Case, ...]:
    """Return the plan and what would change it, each predicted in the same way."""
    work, rates, share = plan.work, plan.rates, plan.utilisation
    other = "sha256" if plan.alg == "blake3" else "blake3"
    every = dataclasses.replace(
        work, state=_unshared(work.state), gradient=_unshared(work.gradient)
    )
    fewer = dataclasses.replace(work, flops=work.flops / 10)
    cases = [
        Case("as planned", forecast(work, rates, share)),
        Case(f"{other} instead of {plan.alg}", forecast(work, plan.machine.rates[other], share)),
        Case(f"a tenth of the {plan.run.unit} a step", forecast(fewer, rates, share)),
    ]
    if work.chips > 1 and plan.request.hardware != CPU:
        cases.append(Case("every replica hashes it all", forecast(every, rates, share)))
    away = dataclasses.replace(rates, rate=_copied(plan), per_tensor=_NO_TIME)
    words = "hashlib.sha256 of every leaf"
    name = words if plan.request.hardware == CPU else f"device_get, {words}"
    return (*cases, Case(name, forecast(work, away, share)))


def _unshared(cost: TreeCost) -> TreeCost:
    """Return the cost where each of them hashes all that it holds, the whole tree."""
    return dataclasses.replace(cost, chip_size=cost.size)


def _copied(plan: DigestPlan) -> Figure:
    """Return the rate of copying a chip's share to its host and hashing it there on one core."""
    hashed = plan.machine.sha256
    if plan.request.hardware == CPU:
        return hashed
    rate = 1 / (1 / hashed.value + 1 / TO_HOST.value)
    return Figure(rate, max(hashed.basis, TO_HOST.basis), f"{TO_HOST.source}, then one core")
