"""The spread of a step's gradient: how far rounding alone moves it, here, at this state and batch.

Estimated on the stored program itself, by noise or by random derivatives (docs/numerics.md).
Samples run one after another through one compiled program: a batch of samples was slower on CPUs
and needs the memory of all of them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.bounds.blocks import block_sizes
from anh_jax.bounds.counter_hash import seed_of, signed_unit, stream
from anh_jax.bounds.deviations import Deviations, Spread, added, either, nonzero
from anh_jax.bounds.samplers import NoiseSampler, Sampler, TangentSampler
from anh_jax.errors import ProgramError
from anh_jax.program.functions import ID
from anh_jax.program.interpret import read_refined
from anh_jax.program.signature import ProgramSignature, StoredProgram
from anh_jax.program.tree import Path, Tree, from_leaves, leaves_of
from attest.numerics_class import ClassRules

Method = Literal["mca", "jvp"]
Pieces = Sequence[Mapping[str, jax.Array]]

# Five deviations from a mean. More cost a training step and a half each, and narrow little
# (bench/spread.py).
_NOISE_SAMPLES = 6
_POINTS = 4
# How far the points of structural zeros lie off, in the size of a tensor's typical element; a
# tensor of zeros takes this as it is.
_DISTANCE = 0.1
_ROOT3 = math.sqrt(3.0)
# Blocks below this many elements need twice the samples.
_SMALL_BLOCK = 8


def usual_samples(signature: ProgramSignature, method: Method) -> int:
    """Return how many samples a method needs for a program's gradients.

    6 of noise; 4 derivatives, or 8 where a block of a gradient has fewer than 8 elements.
    """
    if method == "mca":
        return _NOISE_SAMPLES
    shapes = [leaf.shape for leaf in signature.outputs if leaf.path[0] == "gradient"]
    sizes = [n for shape in shapes for n in block_sizes(tuple(int(s) for s in shape))]
    return 8 if min(sizes, default=_SMALL_BLOCK) < _SMALL_BLOCK else 4


class SpreadEstimator:
    """Estimates spreads of one gradient program; compiles once for each batch size of a piece."""

    def __init__(
        self,
        stored_gradient: StoredProgram,
        rules: ClassRules,
        *,
        method: Method = "mca",
        samples: int | None = None,
    ) -> None:
        self.samples = samples or usual_samples(stored_gradient.signature, method)
        if method == "mca" and self.samples < 2:  # noqa: PLR2004
            raise ProgramError(f"spread: {self.samples} sample has no mean to deviate from; take 2")
        self._stored = stored_gradient
        self._rules = rules
        self._method = method
        self._samplers: dict[int, Sampler] = {}

    @property
    def compilations(self) -> int:
        """Return how many programs were compiled to draw samples."""
        return sum(sampler.traced for sampler in self._samplers.values())

    def estimate(self, state_part: Tree, pieces: Pieces, key: Any, *, seed: int) -> Spread:
        """Return the spread of the sums over all pieces of a step.

        `state_part` holds `parameters` and `step`; the seed is to be drawn after the gradient was
        committed. Raises ProgramError naming an operator that the method cannot see through.
        """
        squares: Deviations | None = None
        for sample in range(self.samples):
            moved: Tree = None
            for place, piece in enumerate(pieces):
                words = stream(seed_of(seed), f"sample {sample} piece {place}", ())
                draw = self._sampler(piece).draw((state_part, piece, key), words)
                moved = added(moved, draw)
            squares = squares or self._sums(pieces[0], moved)
            squares.add(moved)
        assert squares is not None
        return squares.spread(unit=self._sampler(pieces[0]).unit)

    def structural_zeros(
        self, state_part: Tree, pieces: Pieces, key: Any, *, seed: int
    ) -> Mapping[Path, np.ndarray[Any, Any]]:
        """Return where each gradient is exactly zero at four perturbed parameter points.

        Each element moves by about a tenth of its tensor's typical element. Paths begin with
        `gradient`; arrays are boolean.
        """
        moving: Tree = None
        for point in range(_POINTS):
            words = stream(seed_of(seed), f"point {point}", ())
            parameters = _perturbed(state_part["parameters"], words.first, words.second)
            there = {**state_part, "parameters": parameters}
            for piece in pieces:
                # Each piece by itself: in their sum they could cancel.
                outputs = self._sampler(piece).plain((there, piece, key))
                moving = either(moving, nonzero(outputs["gradient"]))
        return {path: ~np.asarray(x) for path, x in leaves_of(moving, ("gradient",)).items()}

    def _sums(self, piece: Mapping[str, jax.Array], first: Tree) -> "Deviations":
        return Deviations(first if self._sampler(piece).draws == "values" else None)

    def _sampler(self, piece: Mapping[str, jax.Array]) -> Sampler:
        size = int(piece[ID].shape[0])
        if size not in self._samplers:
            kind = NoiseSampler if self._method == "mca" else TangentSampler
            program = read_refined(self._stored, batch=size)
            self._samplers[size] = kind(program, self._rules)
        return self._samplers[size]


@jax.jit
def _perturbed(parameters: Tree, first: Any, second: Any) -> Tree:
    def moved(path: Path, value: jax.Array) -> jax.Array:
        noise = signed_unit(stream(jnp.stack([first, second]), "/".join(path), ()), value.shape)
        typical = jnp.sqrt(jnp.mean(jnp.square(value.astype(jnp.float32))))
        distance = _DISTANCE * jnp.where(typical > 0, typical, 1.0)
        return (value + (_ROOT3 * distance) * noise).astype(value.dtype)

    return from_leaves({path: moved(path, x) for path, x in leaves_of(parameters).items()})
