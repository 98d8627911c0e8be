"""Attacks that save arithmetic: a gradient in fewer digits than the contract's class has."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from anh_jax.bounds.emulation import emulated_gradient
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.trainer import StepAttack, Trainer
from anh_jax.training.executor import Tree
from anh_jax.training.state import State, gradient_part

# Exponent and explicit mantissa bits of FP8 E4M3 (Micikevicius et al., arXiv:2209.05433).
_E4M3 = (4, 3)
_E4M3_LARGEST = 448.0
_INT8_LARGEST = 127


class _Emulating(Trainer):
    """Computes bad steps as a coarser class would, by rewriting every product."""

    class_name = "bf16_f32acc"

    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        programs = self.bench.materials.programs
        run = self.bench.once(
            ("emulated", self.class_name),
            lambda: emulated_gradient(programs.stored["gradient"], self.class_name),
        )
        return run(gradient_part(state), self.piece(step), state["key"])


class _Tf32(_Emulating):
    class_name = "tf32"


class _Bf16x3(_Emulating):
    class_name = "bf16x3"


class ClassConfusion(StepAttack):
    """A trainer that computes in another numerics class than the contract names."""

    hidden_in: ClassVar[frozenset[str]] = frozenset()

    def obstacle(self, place: RedTeamBench) -> str:
        """Say that there is nothing to save where the contract's class is no finer."""
        own = place.materials.contract.numerics.class_
        return f"the contract's class is {own}" if own in self.hidden_in else ""


class Bf16ForF32(ClassConfusion):
    """Multiplies in bfloat16 where the contract says float32."""

    name, family = "bf16-for-f32", "precision"
    what = "Products take operands rounded to bfloat16; sums stay in float32."
    trainer = _Emulating
    hidden_in = frozenset({"bf16", "bf16_f32acc"})


class Tf32ForF32(ClassConfusion):
    """Multiplies in TF32 where the contract says float32."""

    name, family = "tf32-for-f32", "precision"
    what = "Products take operands rounded to ten mantissa bits."
    trainer = _Tf32
    hidden_in = frozenset({"bf16", "bf16_f32acc", "tf32"})


class Bf16x3ForF32(ClassConfusion):
    """Multiplies by three bfloat16 products where the contract says float32."""

    name, family = "bf16x3-for-f32", "precision"
    what = "Each product is three bfloat16 products; the lowest one is left out."
    trainer = _Bf16x3
    hidden_in = frozenset({"bf16", "bf16_f32acc", "tf32", "bf16x3"})


class _ShortWeights(Trainer):
    """Takes the gradient at rounded weights."""

    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        short = jax.tree.map(self.short, state["parameters"])
        return self.bench.gradient({**state, "parameters": short}, self.piece(step))

    def short(self, weights: jax.Array) -> jax.Array:
        """Return a tensor as 8-bit integers with one scale would hold it."""
        scale = jnp.max(jnp.abs(weights)) / _INT8_LARGEST
        scale = jnp.where(scale > 0, scale, 1.0)
        return jnp.round(weights / scale) * scale


class _Fp8Weights(_ShortWeights):
    def short(self, weights: jax.Array) -> jax.Array:
        """Return a tensor as FP8 E4M3 with one scale would hold it."""
        scale = jnp.max(jnp.abs(weights)) / np.float32(_E4M3_LARGEST)
        scale = jnp.where(scale > 0, scale, 1.0)
        exponent, mantissa = _E4M3
        # One exponent bit more: the format's top exponent is in use, lax reserves its own.
        return lax.reduce_precision(weights / scale, exponent + 1, mantissa) * scale


class Int8Weights(StepAttack):
    """Multiplies by weights of eight bits."""

    name, family = "int8-weights", "precision"
    what = "The gradient is taken at weights rounded to 8-bit integers, one scale a tensor."
    trainer = _ShortWeights
    noise_of = frozenset({"bf16", "bf16_f32acc"})


class Fp8Weights(StepAttack):
    """Multiplies by weights in FP8."""

    name, family = "fp8-weights", "precision"
    what = "The gradient is taken at weights rounded to FP8 E4M3, one scale a tensor."
    trainer = _Fp8Weights


ATTACKS = (Bf16ForF32(), Tf32ForF32(), Bf16x3ForF32(), Int8Weights(), Fp8Weights())
