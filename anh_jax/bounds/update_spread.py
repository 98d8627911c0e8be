"""The spread of an update whose rule mixes elements: how far rounding moves the new state.

The same noise as for gradients (`bounds/spread.py`), on the stored `update` program, with the
roundoff that updates have in every class.
"""

import dataclasses
from typing import Any

import numpy as np

from anh_jax.bounds.counter_hash import seed_of, stream
from anh_jax.bounds.deviations import Deviations, Spread
from anh_jax.bounds.samplers import NoiseSampler
from anh_jax.bounds.spread import usual_samples
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
        deviations: Deviations | None = None
        for sample in range(self._samples):
            words = stream(seed_of(seed), f"update sample {sample}", ())
            moved = sampler.draw(arguments, words)
            deviations = deviations or Deviations(moved)
            deviations.add(moved)
        assert deviations is not None
        found = deviations.spread(unit=sampler.unit).tensors
        return Spread({path: tensor for path, tensor in found.items() if path != ("step",)})

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
