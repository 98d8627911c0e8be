"""What a row states of a step is held to the gradient that is committed, in every class."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from anh_jax.bounds.blocks import block_sums
from anh_jax.bounds.deviations import Spread, TensorSpread
from anh_jax.bounds.gradient_check import Findings, GradientCheck, RowNumbers
from anh_jax.errors import ProgramError
from attest.numerics_class import CLASSES

NUMBERS = RowNumbers(loss=2.0, weight=8.0, global_norm=3.0, finite=True)
OUTPUTS = {"gradient": {"w": np.ones((3, 4), np.float32)}, "statistics": {}, "loss": np.float32(2),
           "weight": np.float32(8)}  # fmt: skip
SCALARS = {"globalNorm": np.float32(3), "finite": np.uint32(1), "weight": np.float32(8)}
UNKNOWN = ProgramError("program gradient: operator foo.bar: nobody knows how it rounds")


def spread() -> Spread:
    paths = {("gradient", "w"): OUTPUTS["gradient"]["w"], ("loss",): OUTPUTS["loss"],
             ("weight",): OUTPUTS["weight"]}  # fmt: skip
    still = {path: np.zeros(value.shape) for path, value in paths.items()}
    return Spread({path: TensorSpread(0.0, block_sums(x), x == 0) for path, x in still.items()})


def check(
    class_: str = "f32", *, known: Any = None, outputs: Any = OUTPUTS, **changes: Any
) -> Findings:
    return GradientCheck(CLASSES[class_], ()).check(
        outputs,
        OUTPUTS,
        numbers=dataclasses.replace(NUMBERS, **changes),
        scalars=SCALARS,
        spread=known or spread(),
        structural={},
    )


@pytest.mark.parametrize("class_", sorted(CLASSES))
@pytest.mark.parametrize("name", ["global_norm", "weight"])
def test_number_that_scales_the_update_is_held_to_float32_in_every_class(
    class_: str, name: str
) -> None:
    honest = getattr(NUMBERS, name)
    assert check(class_, **{name: honest * (1 + 2.0**-22)}).a.accepted
    found = check(class_, **{name: honest * (1 + 1e-5)})
    assert not found.a.accepted
    assert found.a.where == {"global_norm": "globalNorm", "weight": "weight"}[name]


@pytest.mark.parametrize("name", ["loss", "weight", "global_norm"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 0.0, 1e300])
def test_number_far_off_or_not_finite_is_refuted(name: str, bad: float) -> None:
    assert not check(**{name: bad}).a.accepted


def test_flag_against_the_committed_gradient_is_refuted() -> None:
    found = check(finite=False)
    assert (found.a.value, found.a.where) == (math.inf, "finite flag")


def test_without_a_spread_other_bits_are_capped_and_the_operator_is_named() -> None:
    changed = {**OUTPUTS, "gradient": {"w": OUTPUTS["gradient"]["w"] * np.float32(1 + 1e-6)}}
    found = check(known=UNKNOWN, outputs=changed)
    assert (found.capped, found.blind) == ((("gradient", "w"),), str(UNKNOWN))
    assert check(known=UNKNOWN).capped == ()
