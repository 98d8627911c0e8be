"""Flax nnx modules used as pure functions.

A module's structure is taken once, outside any traced function: building it inside would leave its
whole initialization in the stored program. Parameters are nested dicts with text keys; what else a
module may hold is the random state of dropout, which is set afresh for each example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from anh_jax.errors import ProgramError
from anh_jax.models.axes import AxisNames
from anh_jax.models.model import Model, parameter_tensors
from anh_jax.program.tree import Path, Tree, from_leaves, subtree

Build: TypeAlias = Callable[[nnx.Rngs], nnx.Module]


@dataclass(frozen=True)
class Blueprint:
    """Hold a module's structure without its numbers.

    Attributes:
        build: makes the module.
        graph: flax's description of it.
        paths: the parameters' paths, in flax's order, which sorts list entries by number.
        structure: jax's structure of the parameter state.
        randomness: abstract random state, empty for a module without dropout.
    """

    build: Build
    graph: Any
    paths: tuple[Path, ...]
    structure: Any
    randomness: Any

    def init(self, key: Key[Array, ""]) -> Tree:
        """Draw the parameters from a key."""
        state = nnx.state(self.build(nnx.Rngs(key)), nnx.Param)
        return from_leaves(dict(sorted(zip(self.paths, jax.tree.leaves(state), strict=True))))

    def merge(self, parameters: Tree, *, key: Key[Array, ""] | None = None) -> Any:
        """Return the module with these parameters; `key` seeds its dropout, if it has any."""
        leaves = [subtree(parameters, path) for path in self.paths]
        state = jax.tree.unflatten(self.structure, leaves)
        return nnx.merge(self.graph, state, self._random_state(key))

    def _random_state(self, key: Key[Array, ""] | None) -> Any:
        source = jax.random.key(0) if key is None else key
        leaves, structure = jax.tree.flatten(self.randomness)
        fresh = [
            jax.random.fold_in(source, index)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else jnp.zeros(leaf.shape, leaf.dtype)
            for index, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, fresh)


def blueprint(build: Build, *, prepare: Callable[[Any], None] | None = None) -> Blueprint:
    """Take the structure of the module that `build` makes; `prepare` may set its mode.

    Raises:
        ProgramError: the module holds state beside parameters and dropout's keys.
    """
    module = nnx.eval_shape(lambda: build(nnx.Rngs(jax.random.key(0))))
    if prepare is not None:
        prepare(module)
    graph, parameters, randomness, rest = nnx.split(module, nnx.Param, nnx.RngState, ...)
    if others := jax.tree.flatten_with_path(rest)[0]:
        raise ProgramError(
            f"module {type(module).__name__}: {'/'.join(_path(others[0][0]))} is neither a"
            " parameter nor a key; statistics over a batch (batch norm) make an example's gradient"
            " depend on its neighbours: use layer, group or RMS norm"
        )
    entries, structure = jax.tree.flatten_with_path(parameters)
    paths = tuple(_path(entry[0]) for entry in entries)
    return Blueprint(build, graph, paths, structure, randomness)


def model_from_nnx(
    name: str,
    build: Build,
    call: Callable[[Any, Mapping[str, Array]], Any],
    *,
    axes: Mapping[str, AxisNames] | None = None,
) -> Model:
    """Turn an ordinary nnx module into a `Model`.

    `build(rngs)` makes the module; `call(module, example)` returns the predictions for *one*
    example, a dict of arrays without batch dimension. It is vectorized over the batch here, with
    dropout keyed by example, so no example can see its neighbours. `axes` is as in
    `parameter_tensors`. In evaluation the module is in `eval()` mode.

    Raises:
        ProgramError: the module holds state beside parameters and dropout's keys.
    """
    training = blueprint(build, prepare=lambda module: module.train())
    evaluation = blueprint(build, prepare=lambda module: module.eval())

    def apply(
        parameters: Tree, examples: Mapping[str, Array], *, keys: Key[Array, " b"] | None
    ) -> Any:
        if keys is None:
            return jax.vmap(lambda example: call(evaluation.merge(parameters), example))(
                dict(examples)
            )
        return jax.vmap(lambda example, key: call(training.merge(parameters, key=key), example))(
            dict(examples), keys
        )

    return Model(name, parameter_tensors(training.init, axes or {}), training.init, apply)


def _path(keys: Any) -> Path:
    names = [str(getattr(key, "key", getattr(key, "name", key))) for key in keys]
    # The last step leads from flax's Variable to its array.
    return tuple(names[:-1] if names and names[-1] == "value" else names)
