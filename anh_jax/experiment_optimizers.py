"""Config records of the optimizers that the contract can name."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

LearningRate = Annotated[
    float, Meta(gt=0, description="Largest learning rate, reached after warm-up, per step.")
]
WeightDecay = Annotated[
    float, Meta(ge=0, description="Decoupled weight decay, per unit of learning rate.")
]
ClipNorm = Annotated[
    Annotated[float, Meta(gt=0)] | None,
    Meta(description="Global gradient norm above which gradients are scaled down; null: never."),
]


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say how the learning rate moves over the run."""

    kind: Annotated[
        Literal["constant", "linear", "cosine"],
        Meta(description="Shape of the decay after warm-up."),
    ] = "constant"
    warmup_steps: Annotated[
        int, Meta(ge=0, le=2**53 - 1, description="Linear warm-up from zero, steps.")
    ] = 0
    final_fraction: Annotated[
        float,
        Meta(ge=0, le=1, description="Learning rate at the last step over the largest, 0 to 1."),
    ] = 0.0


class Sgd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sgd", tag_field="name"):
    """Choose stochastic gradient descent."""

    learning_rate: LearningRate
    schedule: Annotated[Schedule, Meta(description="Learning rate over the run.")] = Schedule()
    weight_decay: WeightDecay = 0.0
    clip_norm: ClipNorm = None


class Momentum(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="momentum", tag_field="name"
):
    """Choose gradient descent with a velocity."""

    learning_rate: LearningRate
    decay: Annotated[float, Meta(ge=0, lt=1, description="Velocity kept per step, 0 to 1.")] = 0.9
    schedule: Annotated[Schedule, Meta(description="Learning rate over the run.")] = Schedule()
    weight_decay: WeightDecay = 0.0
    clip_norm: ClipNorm = None


class AdamW(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="adamw", tag_field="name"):
    """Choose Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101)."""

    learning_rate: LearningRate
    beta1: Annotated[float, Meta(ge=0, lt=1, description="First moment kept per step, 0 to 1.")] = (
        0.9
    )
    beta2: Annotated[
        float, Meta(ge=0, lt=1, description="Second moment kept per step, 0 to 1.")
    ] = 0.999
    epsilon: Annotated[
        float, Meta(gt=0, description="Added to the root of the second moment, gradient units.")
    ] = 1e-8
    schedule: Annotated[Schedule, Meta(description="Learning rate over the run.")] = Schedule()
    weight_decay: WeightDecay = 0.0
    clip_norm: ClipNorm = None


class Lion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="lion", tag_field="name"):
    """Choose Lion, a sign update (Chen et al., arXiv:2302.06675)."""

    learning_rate: LearningRate
    beta1: Annotated[
        float, Meta(ge=0, lt=1, description="Moment's share in the update, 0 to 1.")
    ] = 0.9
    beta2: Annotated[float, Meta(ge=0, lt=1, description="Moment kept per step, 0 to 1.")] = 0.99
    schedule: Annotated[Schedule, Meta(description="Learning rate over the run.")] = Schedule()
    weight_decay: WeightDecay = 0.0
    clip_norm: ClipNorm = None


class Adafactor(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="adafactor", tag_field="name"
):
    """Choose Adafactor with an absolute learning rate (Shazeer and Stern, arXiv:1804.04235).

    The only rule here that is not elementwise: its updates are judged by a spread.
    """

    learning_rate: LearningRate
    decay_exponent: Annotated[
        float, Meta(gt=0, le=1, description="Step t keeps 1 - t^-e of the moments: this e.")
    ] = 0.8
    epsilon: Annotated[
        float, Meta(gt=0, description="Added to each squared gradient, gradient units squared.")
    ] = 1e-30
    update_clip: Annotated[
        float, Meta(gt=0, description="Root mean square above which an update is scaled down.")
    ] = 1.0
    factored_from: Annotated[
        int, Meta(ge=2, le=2**53 - 1, description="Shortest axis that is factored, elements.")
    ] = 128
    schedule: Annotated[Schedule, Meta(description="Learning rate over the run.")] = Schedule()
    weight_decay: WeightDecay = 0.0
    clip_norm: ClipNorm = None


OptimizerConfig = Sgd | Momentum | AdamW | Lion | Adafactor
