"""Config groups that are no choice by name, with a unit or a meaning for each field.

`training, init, properties, numerics, retention` enter the contract; `mesh, plan, evaluation,
attest, runner, trackers, checkpoints` are how one trainer runs it and stand in genesis only.
"""

from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from attest.numerics_class import CLASSES, ClassRules

SafeInteger = Annotated[int, Meta(ge=0, le=2**53 - 1)]
AxisSize = Annotated[int, Meta(ge=1, le=2**20)]
Tolerance = Annotated[float, Meta(gt=0)]


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say how long training goes on and what fixes its randomness."""

    steps: Annotated[int, Meta(ge=1, le=2**32 - 1, description="Optimizer steps in the run.")]
    batch_size: Annotated[
        int, Meta(ge=1, le=2**31 - 1, description="Examples per step, over all devices.")
    ]
    seed: Annotated[SafeInteger, Meta(description="Seed of initialisation, order and dropout.")] = 0
    seed_rule: Annotated[
        Literal["fixed", "beacon"],
        Meta(description="Who chose the seed: fixed is the author; beacon has no source yet."),
    ] = "fixed"


class Init(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say where state 0 comes from."""

    kind: Annotated[
        Literal["program"],
        Meta(description="program: the contract's init program draws it from the seed."),
    ] = "program"


class Property(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Promise a share of right answers on the hold-out set."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the property.")]
    numerator: Annotated[
        SafeInteger, Meta(description="Threshold on correct / total: its numerator.")
    ]
    denominator: Annotated[
        int, Meta(ge=1, le=2**53 - 1, description="Threshold on correct / total: its denominator.")
    ]
    margin: Annotated[
        SafeInteger,
        Meta(description="Answers either side of the threshold that leave it undecided, examples."),
    ] = 0


class Numerics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"class_": "class"}):
    """Set how the programs round, and the tolerances by which a replayed step is judged."""

    class_: Annotated[
        Literal["f32", "tf32", "bf16x3", "bf16_f32acc", "bf16"],
        Meta(description="Numerics class: how products, sums and activations are rounded."),
    ] = "f32"
    c: Annotated[
        Tolerance | None,
        Meta(description="Gradient tolerance per tensor, in spreads; null: the class's own."),
    ] = None
    c_row: Annotated[
        Tolerance | None,
        Meta(description="Gradient tolerance per block, in spreads; null: the class's own."),
    ] = None
    cap: Annotated[
        Tolerance | None,
        Meta(
            description="Spread over gradient norm above which a step is unattestable;"
            " null: the class's own."
        ),
    ] = None
    a2: Annotated[
        Tolerance | None,
        Meta(
            description="Largest difference of two updates, in learning rates, from step 10;"
            " null: the class's own."
        ),
    ] = None
    a2_cold: Annotated[
        Tolerance | None,
        Meta(
            description="Largest difference of two updates, in learning rates, before step 10;"
            " null: the class's own."
        ),
    ] = None
    null_gradients: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(
            description="Parameters whose gradient is mathematically zero, by path: no cap, no A2;"
            " needs a policy that allows it."
        ),
    ] = ()

    @property
    def rules(self) -> ClassRules:
        """Return the class's rules with the tolerances that are set here."""
        own = {name: getattr(self, name) for name in ("c", "c_row", "cap", "a2", "a2_cold")}
        given = {name: value for name, value in own.items() if value is not None}
        return replace(CLASSES[self.class_], **given)


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say how long a step can be opened, by whom, and at what price."""

    window: Annotated[
        str, Meta(min_length=1, description="How long steps stay openable after final, as text.")
    ] = "90 days"
    holders: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(min_length=1, description="Operators who keep states and data."),
    ] = ("trainer",)
    price: Annotated[
        str, Meta(min_length=1, description="Price of opening one step, amount and unit as text.")
    ] = "0"
    deadline: Annotated[
        str, Meta(min_length=1, description="Time to answer a request to open a step, as text.")
    ] = "7 days"


class Mesh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Set the sizes of the device mesh's axes."""

    data: Annotated[AxisSize, Meta(description="Devices that split the batch.")] = 1
    fsdp: Annotated[
        AxisSize, Meta(description="Devices that split both the batch and the parameters.")
    ] = 1
    tensor: Annotated[AxisSize, Meta(description="Devices that split the matrices.")] = 1


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say how this trainer computes the contract's programs."""

    kind: Annotated[
        Literal["exported", "native"],
        Meta(description="exported: the stored programs; native: own code, judged by bounds."),
    ] = "exported"
    microbatch: Annotated[
        Annotated[int, Meta(ge=1, le=2**31 - 1)] | None,
        Meta(description="Examples per gradient call, summed; null: the whole batch at once."),
    ] = None


class Evaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say when the hold-out set is looked at."""

    every_steps: Annotated[
        SafeInteger, Meta(description="Steps between evaluations; 0: only after the last step.")
    ] = 0


class Attest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say what is signed, how, and where it is logged."""

    mode: Annotated[
        Literal["full", "off"],
        Meta(description="full: digest, sign and log; off: train only, nothing can be verified."),
    ] = "full"
    digest: Annotated[
        str,
        Meta(
            pattern=r"^(auto|every [1-9][0-9]{0,8})$",
            description="State digest policy, 'every N' (steps, and at the last) or 'auto'.",
        ),
    ] = "every 1"
    digester: Annotated[
        Literal["auto", "host", "device"],
        Meta(description="Who hashes, all to equal bytes; auto: the host for CPUs, else devices."),
    ] = "auto"
    segments: Annotated[
        str,
        Meta(
            pattern=r"^(off|auto|every [1-9][0-9]{0,3})$",
            description="What is logged: 'off' steps, 'every K' a segment for K or more, 'auto'.",
        ),
    ] = "off"
    bound: Annotated[
        str,
        Meta(
            pattern=r"^(off|every [1-9][0-9]{0,8})$",
            description="Declared bound of each row, measured anew 'every N' steps;"
            " 'off': rows declare none.",
        ),
    ] = "off"
    alg: Annotated[Literal["blake3", "sha256"], Meta(description="Hash of the state digest.")] = (
        "blake3"
    )
    log: Annotated[
        str,
        Meta(
            min_length=1,
            description="Where records go: local, the run directory's own log,"
            " or a served log's URL.",
        ),
    ] = "local"
    witnesses: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(
            description="Who cosigns a local log: local, a key in the run directory,"
            " and others as 'VKEY URL'."
        ),
    ] = ("local",)
    operator: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            description="Name of the operator who trains.",
        ),
    ] = "self"

    @property
    def unmeasured_digest(self) -> str:
        """Return the policy of a run that measures nothing before genesis: `auto` is every step."""
        return "every 1" if self.digest == "auto" else self.digest


class Runner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say how many processes train."""

    workers: Annotated[int, Meta(ge=1, le=2**20, description="Processes that form one mesh.")] = 1


class Checkpoints(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say how often the training state is kept on disk."""

    every_steps: Annotated[
        int, Meta(ge=1, le=2**53 - 1, description="Steps between training checkpoints.")
    ] = 100
    keep: Annotated[int, Meta(ge=1, le=2**31, description="Newest training checkpoints kept.")] = 3


Tracker = Literal["progress"]
