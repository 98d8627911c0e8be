"""Predict what digests cost a run, and say of each number how it is known.

A step is `flops / (chips x peak x utilisation)` seconds, a digest the bytes that a chip hashes
over its rate plus a fixed time for each tensor. Left out: dispatch, and the gather of a few
kilobytes of digests. Both are hidden behind the next step where the digest runs on the device.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from anh_jax.digest.cost import TreeCost
from anh_jax.digest.policy import choose_every, digest_share


class Basis(enum.IntEnum):
    """How a number is known, from the surest to the weakest."""

    COUNTED = 0
    MEASURED = 1
    ROOFLINE = 2
    ASSUMED = 3

    @property
    def label(self) -> str:
        """Return the word that stands beside the number."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Figure:
    """Hold a number with its basis and, in words, where it is from."""

    value: float
    basis: Basis
    source: str


@dataclass(frozen=True, slots=True)
class Machine:
    """Hold what one chip does, or one host that hashes for itself.

    `peak` counts floating-point operations a second, `rate` bytes digested a second, `per_tensor`
    the seconds that a tensor takes beside its bytes, `row` those of signing a step's row.
    """

    peak: Figure
    rate: Figure
    per_tensor: Figure
    row: Figure


@dataclass(frozen=True, slots=True)
class Workload:
    """Hold what one step computes and digests, on how many chips.

    `longest` is the interval of the training checkpoints in steps; `exact` says that a step is
    judged by its bits, so that a state may be skipped.
    """

    flops: float
    state: TreeCost
    gradient: TreeCost
    chips: int
    longest: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Forecast:
    """Hold predicted seconds of a step, of one digest of each tree, and the policy to choose."""

    step: Figure
    state: Figure
    gradient: Figure
    row: Figure
    every: int

    def share_at(self, every: int) -> Figure:
        """Return what digests add to an average step where the state's come every `every`."""
        fixed = self.gradient.value + self.row.value
        value = digest_share(self.step.value, self.state.value, fixed, every=every)
        inputs = (self.step, self.state, self.gradient, self.row)
        return _result(value, f"gradient and row at every step, state every {every}", inputs)


def forecast(work: Workload, machine: Machine, utilisation: Figure) -> Forecast:
    """Predict a step, its digests and the policy; AnhError where the step takes no time.

    Every result has the weakest basis among what it was computed from.
    """
    step = _result(
        work.flops / (work.chips * machine.peak.value * utilisation.value),
        f"arithmetic over {work.chips:,} x {utilisation.value:g} of the peak",
        (machine.peak, utilisation),
    )
    state, gradient = (_digest(cost, machine) for cost in (work.state, work.gradient))
    # What every row costs, however often the state is digested.
    fixed = gradient.value + machine.row.value
    every = choose_every(step.value, state.value, fixed, longest=work.longest, exact=work.exact)
    return Forecast(step, state, gradient, machine.row, every)


def _digest(cost: TreeCost, machine: Machine) -> Figure:
    return _result(
        cost.chip_size / machine.rate.value + cost.tensors * machine.per_tensor.value,
        "the bytes it hashes over its rate, and each tensor's own time",
        (machine.rate, machine.per_tensor),
    )


def _result(value: float, source: str, inputs: Sequence[Figure]) -> Figure:
    return Figure(value, max(figure.basis for figure in inputs), source)
