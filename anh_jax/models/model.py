"""A model as the programs see it: named parameters and two pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Key

from anh_jax.errors import ProgramError
from anh_jax.models.axes import AxisNames, spec_of
from anh_jax.program.signature import Tensor
from anh_jax.program.tensors import tensor_like
from anh_jax.program.tree import Path, Tree, from_leaves, leaves_of, path_text


@runtime_checkable
class ExampleField(Protocol):
    """Shape and dtype of one field of one example, without the batch dimension."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the field's shape in one example."""
        ...

    @property
    def dtype(self) -> Any:
        """Return the field's dtype."""
        ...


@runtime_checkable
class Apply(Protocol):
    """Computes predictions from parameters and examples.

    `keys` holds one key per example, folded from (seed, step, example id), so that randomness does
    not depend on how a batch is cut; None asks for the deterministic form. Each prediction depends
    on its own example alone: `b` is free, and the gradient of a batch is a sum over examples.
    """

    def __call__(
        self,
        parameters: Tree,
        examples: Mapping[str, Array],
        *,
        keys: Key[Array, " b"] | None,
    ) -> Any:
        """Return predictions (logits, usually) with a leading batch dimension."""
        ...


@dataclass(frozen=True)
class Model:
    """Hold what the contract's programs need of a model.

    Attributes:
        name: a word for messages.
        parameters: tree of `Tensor`, the mesh axes of each parameter included.
        init: draws the parameters from a key; exact if it uses `models.initializers`.
        apply: computes predictions.
    """

    name: str
    parameters: Tree
    init: Callable[[Key[Array, ""]], Tree]
    apply: Apply


def parameter_tensors(
    init: Callable[[Key[Array, ""]], Tree], axes: Mapping[str, AxisNames]
) -> Tree:
    """Return the tree of `Tensor` that `init` draws.

    `axes` names the dimensions of parameters by the end of their path, such as
    `{"query/kernel": ("embed", "heads")}`; the longest match counts, and what matches nothing is
    replicated.

    Raises:
        ProgramError: names of another number than dimensions, or an entry that matches nothing.
    """
    drawn = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))
    tensors: dict[Path, Tensor] = {}
    used: set[str] = set()
    for path, value in leaves_of(drawn).items():
        ends = [end for end in axes if f"/{path_text(path)}".endswith(f"/{end}")]
        end = max(ends, key=len, default=None)
        names = axes[end] if end is not None else (None,) * len(value.shape)
        used.update(ends)
        if len(names) != len(value.shape):
            raise ProgramError(
                f"parameter {path_text(path)}: {len(value.shape)} dimensions, named {names}"
            )
        tensors[path] = tensor_like(value, spec_of(names))
    if unused := sorted(set(axes) - used):
        raise ProgramError(f"axes of {unused[0]}: no parameter's path ends so")
    return from_leaves(tensors)
