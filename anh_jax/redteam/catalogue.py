"""Every step attack there is, by name."""

from anh_jax.redteam import (
    adversarial,
    backdoors,
    other_bounds,
    other_data,
    other_precision,
    other_rule,
    splices,
)
from anh_jax.redteam.trainer import StepAttack

STEP_ATTACKS: tuple[StepAttack, ...] = (
    *other_data.ATTACKS,
    *adversarial.ATTACKS,
    *other_rule.ATTACKS,
    *other_precision.ATTACKS,
    *backdoors.ATTACKS,
    *splices.ATTACKS,
    *other_bounds.ATTACKS,
)
