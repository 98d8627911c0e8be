"""The spread of an update whose rule mixes elements: how far rounding moves the new state.

The same noise as for gradients (`bounds/spread.py`), on the stored `update` program, with the
roundoff that updates have in every class.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from anh_jax.bounds.blocks import block_sums
from anh_jax.bounds.counter_hash import seed_of, stream
from anh_jax.bounds.samplers import NoiseSampler
from anh_jax.bounds.spread import Spread, TensorSpread, usual_samples
from anh_jax.bounds.statistic import Array, host_leaves
from anh_jax.bounds.update_stage import UpdateInputs
from anh_jax.program.interpret import read_refined
from anh_jax.program.signature import StoredProgram
from attest.numerics_class import ClassRules, Roundoff


class UpdateSpreadEstimator:
    """Estimates spreads of one update program; `names` are those of its constants, in order.

    Compiles when it is first asked.
    """

    def __init__(
        self, stored_update: StoredProgram, rules: ClassRules, names: tuple[str, ...]
    ) -> None:
        unit = rules.roundoff.update
        fine = Roundoff(dot=unit, reduce=unit, elementwise=unit, storage=unit, update=unit)
        self._stored = stored_update
        self._rules = dataclasses.replace(rules, roundoff=fine)
        self._names = names
        self._samples = usual_samples(stored_update.signature, "mca")
        self._made: NoiseSampler | None = None

    def of(self, inputs: UpdateInputs, *, seed: int) -> Spread:
        """Return the spread of the new `parameters` and `optimizer`.

        Raises ProgramError naming an operator that rounding cannot be followed through.
        """
        sampler = self._sampler()
        arguments = self._arguments(inputs)
        base = host_leaves(sampler.plain(arguments))
        sums = {path: _Sums.none(value) for path, value in base.items() if path != ("step",)}
        for sample in range(self._samples):
            words = stream(seed_of(seed), f"update sample {sample}", ())
            moved = host_leaves(sampler.draw(arguments, words))
            for path, total in sums.items():
                sums[path] = total.with_sample(moved[path], base[path])
        scale = sampler.unit**2 / self._samples
        return Spread({path: total.spread(scale) for path, total in sums.items()})

    def _sampler(self) -> NoiseSampler:
        if self._made is None:
            self._made = NoiseSampler(read_refined(self._stored, batch=None), self._rules)
        return self._made

    def _arguments(self, inputs: UpdateInputs) -> tuple[Any, ...]:
        scalars = {
            "globalNorm": np.float32(inputs.global_norm),
            "finite": np.uint32(inputs.finite),
            "weight": np.float32(inputs.weight),
        }
        state = {name: inputs.before[name] for name in ("parameters", "optimizer", "step")}
        constants = np.array([inputs.constants[name] for name in self._names], np.float32)
        return state, inputs.gradient, scalars, constants


@dataclass(frozen=True)
class _Sums:
    blocks: tuple[Array, ...]
    square: float
    zero: Array

    @classmethod
    def none(cls, value: Array) -> "_Sums":
        zeros = np.zeros(value.shape)
        return cls(block_sums(zeros), 0.0, np.ones(value.shape, np.bool_))

    def with_sample(self, moved: Array, base: Array) -> "_Sums":
        squares = (moved.astype(np.float64) - base.astype(np.float64)) ** 2
        blocks = zip(self.blocks, block_sums(squares), strict=True)
        return _Sums(
            tuple(old + new for old, new in blocks),
            self.square + float(squares.sum()),
            self.zero & (squares == 0),
        )

    def spread(self, scale: float) -> TensorSpread:
        blocks = tuple(np.asarray(x) * scale for x in self.blocks)
        return TensorSpread(self.square * scale, blocks, self.zero)
