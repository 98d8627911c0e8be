"""Check B, staged: optimizer slots from the committed ones before, parameters from those after.

Recomputing an update in one go passes the rounding of a cancelled moment on to the parameters and
refuses honest trainers (measured). So the slots are checked first, and the parameters are then
computed from the slots *as committed*. The second stage is arithmetic of the named optimizer in
float32; it is used only after it has been found to reproduce the stored update program itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from anh_jax.bounds.residual import Candidate, Residual, nearest_residual
from anh_jax.bounds.statistic import Array, Statistic, host_leaves, largest, same_bits
from anh_jax.experiment_optimizers import AdamW, Lion, Momentum, Sgd
from anh_jax.program.tree import Path, path_text
from anh_jax.training.optimizer import (
    CLIP_NORM,
    FIRST_CORRECTION,
    LEARNING_RATE,
    SECOND_CORRECTION,
)

Leaves = Mapping[Path, Array]
Elementwise = Sgd | Momentum | AdamW | Lion

# The slot that adds up squares.
_SQUARES = "second"
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

    def __init__(self, config: Elementwise, *, unit_roundoff: float) -> None:
        self._config = config
        self._unit_roundoff = unit_roundoff

    def unfit(self, inputs: UpdateInputs, reference: Any) -> Statistic:
        """Return how far the stored program itself is from this class's second stage.

        `reference` is what the stored update program gives from the same inputs. Where this does
        not accept, the program is of another rule and nothing can be accepted by it.
        """
        if not inputs.finite:
            return Statistic(0.0, "nothing moves")
        own = self._parameters(inputs, reference["optimizer"], reference["parameters"])
        return largest(residual.worst for residual in own)

    def residuals(self, inputs: UpdateInputs, after: Any, reference: Any) -> Iterator[Residual]:
        """Yield what lies between the committed state `after` and the recomputed one, by tensor.

        After a step that is not finite everything must be as it was.
        """
        if not inputs.finite:
            yield from _unmoved(inputs, after)
            return
        yield from self._slots(inputs, after["optimizer"], reference["optimizer"])
        yield from self._parameters(inputs, after["optimizer"], after["parameters"])

    def _slots(self, inputs: UpdateInputs, committed: Any, expected: Any) -> Iterator[Residual]:
        before, ours, theirs = map(host_leaves, (inputs.before["optimizer"], expected, committed))
        scale = _scale(inputs)
        for path, value in ours.items():
            if path[0] == _SQUARES and (theirs[path] < 0).any():
                # A number too small to differ from 0 here, whose root makes parameters NaN there.
                odd = np.where(theirs[path] < 0, np.inf, 0.0)
                yield Residual(f"optimizer/{path_text(path)}: a negative square", odd, odd)
                continue
            # A velocity is a plain sum that may cancel, and then its change is no measure of it.
            terms = None
            if isinstance(self._config, Momentum):
                gradient = host_leaves(inputs.gradient)[path[1:]]
                kept = np.float32(self._config.decay) * before[path]
                terms = np.abs(kept) + np.abs(gradient * scale)
            yield nearest_residual(
                f"optimizer/{path_text(path)}",
                theirs[path],
                [Candidate(value, before[path], terms)],
                unit_roundoff=self._unit_roundoff,
            )

    def _parameters(self, inputs: UpdateInputs, slots: Any, committed: Any) -> Iterator[Residual]:
        theirs, news = host_leaves(committed), host_leaves(slots)
        old = host_leaves(inputs.before["optimizer"])
        gradients = host_leaves(inputs.gradient)
        for path, value in host_leaves(inputs.before["parameters"]).items():
            moved = self._moved(path, value, gradients[path], old, news, inputs)
            yield nearest_residual(
                f"parameters/{path_text(path)}",
                theirs[path],
                [Candidate(new, value) for new in moved],
                unit_roundoff=self._unit_roundoff,
            )

    def _moved(
        self,
        path: Path,
        value: Array,
        gradient: Array,
        old: Leaves,
        new: Leaves,
        inputs: UpdateInputs,
    ) -> list[Array]:
        """Return the values that a parameter may take, from the slots after the step."""
        rate = np.float32(inputs.constants[LEARNING_RATE])
        decay = np.float32(self._config.weight_decay)
        with np.errstate(all="ignore"):
            pull = decay * value if decay else np.zeros_like(value)
            mean = gradient * _scale(inputs)
            return [
                value + -rate * (direction + pull)
                for direction in self._directions(path, mean, old, new, inputs)
            ]

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
                root = np.sqrt(new[_SQUARES, *path] / two) + np.float32(epsilon)
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


def _unmoved(inputs: UpdateInputs, after: Any) -> Iterator[Residual]:
    for part in ("optimizer", "parameters"):
        old, new = host_leaves(inputs.before[part]), host_leaves(after[part])
        for path, value in old.items():
            name = f"{part}/{path_text(path)}"
            if same_bits(value, new[path]):
                yield Residual(name, np.zeros_like(value), np.zeros_like(value))
            else:
                moved = np.full_like(value, np.inf)
                yield Residual(f"{name}: moved in a step that is not finite", moved, moved)


def _scale(inputs: UpdateInputs) -> np.float32:
    """Return what a summed gradient is multiplied by: one over the weight, clipped."""
    weight = np.float32(inputs.weight)
    scale = np.float32(1) / weight if weight > 0 else np.float32(0)
    if CLIP_NORM in inputs.constants:
        clip = np.float32(inputs.constants[CLIP_NORM])
        scale = scale * (clip / np.maximum(np.float32(inputs.global_norm), clip))
    return np.float32(scale)
