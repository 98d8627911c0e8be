"""Check B, staged: optimizer slots from the committed ones before, parameters from those after.

Recomputing an update in one go passes the rounding of a cancelled moment on to the parameters and
refuses honest trainers (measured). So the slots are checked first, and the parameters are then
computed from the slots *as committed*. The second stage is arithmetic of the named optimizer in
float32; it is used only after it has been found to reproduce the stored update program itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from anh_jax.bounds.acceptance import (
    Array,
    Statistic,
    element_ratio,
    host_leaves,
    largest,
    same_bits,
)
from anh_jax.experiment_optimizers import AdamW, Lion, Momentum, OptimizerConfig, Sgd
from anh_jax.program.tree import Path, path_text
from anh_jax.training.optimizer import (
    CLIP_NORM,
    FIRST_CORRECTION,
    LEARNING_RATE,
    SECOND_CORRECTION,
)

Leaves = Mapping[Path, Array]

# A sum of two terms this close to zero, in roundoffs of the terms, may have either sign.
_SIGN_ROUNDOFFS = 4


@dataclass(frozen=True)
class UpdateInputs:
    """What an update takes, as committed: state before, summed gradient, scalars, constants.

    `before` holds `parameters` and `optimizer`. `constants` are the step's, by name.
    """

    before: Any
    gradient: Any
    weight: float
    global_norm: float
    finite: bool
    constants: Mapping[str, float]


class UpdateStage:
    """The two stages of one optimizer's update, for one numerics class."""

    def __init__(self, config: OptimizerConfig, *, unit_roundoff: float) -> None:
        self._config = config
        self._unit_roundoff = unit_roundoff

    def check(self, inputs: UpdateInputs, after: Any, reference: Any) -> Statistic:
        """Return check B of the committed state `after`.

        `reference` is what the stored update program gives here from the same inputs. Where the
        second stage is not that program's, the statistic is infinite: nothing can be accepted.
        """
        if not inputs.finite:
            return self._check_unchanged(inputs, after)
        own = self._parameters(inputs, reference["optimizer"], reference["parameters"])
        if not own.accepted:
            return Statistic(float("inf"), f"{own.where}: the update program is of another rule")
        return largest(
            (
                self._slots(inputs, after["optimizer"], reference["optimizer"]),
                self._parameters(inputs, after["optimizer"], after["parameters"]),
            )
        )

    def _check_unchanged(self, inputs: UpdateInputs, after: Any) -> Statistic:
        """Check that a step which is not finite has left everything as it was."""
        for part in ("parameters", "optimizer"):
            old, new = host_leaves(inputs.before[part]), host_leaves(after[part])
            for path, value in old.items():
                if not same_bits(value, new[path]):
                    where = f"{part}/{path_text(path)}: moved in a step that is not finite"
                    return Statistic(float("inf"), where)
        return Statistic(0.0, "nothing moved")

    def _slots(self, inputs: UpdateInputs, committed: Any, expected: Any) -> Statistic:
        before, ours, theirs = map(host_leaves, (inputs.before["optimizer"], expected, committed))
        return largest(
            Statistic(
                element_ratio(
                    theirs[path], [ours[path]], before[path], unit_roundoff=self._unit_roundoff
                ),
                f"optimizer/{path_text(path)}",
            )
            for path in ours
        )

    def _parameters(self, inputs: UpdateInputs, slots: Any, committed: Any) -> Statistic:
        before = host_leaves(inputs.before["parameters"])
        theirs = host_leaves(committed)
        moved = self._moved(inputs, host_leaves(slots))
        return largest(
            Statistic(
                element_ratio(theirs[path], moved[path], value, unit_roundoff=self._unit_roundoff),
                f"parameters/{path_text(path)}",
            )
            for path, value in before.items()
        )

    def _moved(self, inputs: UpdateInputs, slots: Leaves) -> dict[Path, list[Array]]:
        """Return the values that each parameter may take, from the slots after the step."""
        rate = np.float32(inputs.constants[LEARNING_RATE])
        decay = np.float32(self._config.weight_decay)
        before = host_leaves(inputs.before["parameters"])
        old = host_leaves(inputs.before["optimizer"])
        scale = _scale(inputs)
        moved: dict[Path, list[Array]] = {}
        with np.errstate(all="ignore"):
            for path, gradient in host_leaves(inputs.gradient).items():
                value = before[path]
                pull = decay * value if decay else np.zeros_like(value)
                moved[path] = [
                    value + -rate * (direction + pull)
                    for direction in self._directions(path, gradient * scale, old, slots, inputs)
                ]
        return moved

    def _directions(
        self, path: Path, mean: Array, old: Leaves, new: Leaves, inputs: UpdateInputs
    ) -> list[Array]:
        match self._config:
            case Sgd():
                return [mean]
            case Momentum():
                return [new["velocity", *path]]
            case AdamW(epsilon=epsilon):
                one = np.float32(inputs.constants[FIRST_CORRECTION])
                two = np.float32(inputs.constants[SECOND_CORRECTION])
                root = np.sqrt(new["second", *path] / two) + np.float32(epsilon)
                return [(new["first", *path] / one) / root]
            case Lion(beta1=beta1):
                kept = np.float32(beta1) * old["momentum", *path]
                fresh = np.float32(1 - beta1) * mean
                return self._signs(kept, fresh)

    def _signs(self, kept: Array, fresh: Array) -> list[Array]:
        """Return the sign of a sum, and every sign where rounding decides it."""
        sign = np.sign(kept + fresh)
        slack = _SIGN_ROUNDOFFS * self._unit_roundoff * (np.abs(kept) + np.abs(fresh))
        open_ = np.abs(kept + fresh) <= slack
        every = [np.where(open_, np.float32(choice), sign) for choice in (-1, 0, 1)]
        return [sign, *every]


def _scale(inputs: UpdateInputs) -> np.float32:
    """Return what a summed gradient is multiplied by: one over the weight, clipped."""
    weight = np.float32(inputs.weight)
    scale = np.float32(1) / weight if weight > 0 else np.float32(0)
    if CLIP_NORM in inputs.constants:
        clip = np.float32(inputs.constants[CLIP_NORM])
        scale = scale * (clip / np.maximum(np.float32(inputs.global_norm), clip))
    return np.float32(scale)
