"""StableHLO's attributes as plain Python values.

In a portable artifact attributes that have their default value are absent; so are they here.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from anh_jax.program.interpreter.bindings import hlo, ir
from anh_jax.program.interpreter.constants import constant


@dataclass(frozen=True)
class DotNumbers:
    """Name the dimensions of a matrix product, by operand."""

    lhs_batching: tuple[int, ...]
    rhs_batching: tuple[int, ...]
    lhs_contracting: tuple[int, ...]
    rhs_contracting: tuple[int, ...]


@dataclass(frozen=True)
class GatherNumbers:
    """Name the dimensions of a gather as the StableHLO specification does."""

    offset_dims: tuple[int, ...]
    collapsed_slice_dims: tuple[int, ...]
    operand_batching_dims: tuple[int, ...]
    start_indices_batching_dims: tuple[int, ...]
    start_index_map: tuple[int, ...]
    index_vector_dim: int


@dataclass(frozen=True)
class ScatterNumbers:
    """Name the dimensions of a scatter as the StableHLO specification does."""

    update_window_dims: tuple[int, ...]
    inserted_window_dims: tuple[int, ...]
    input_batching_dims: tuple[int, ...]
    scatter_indices_batching_dims: tuple[int, ...]
    scatter_dims_to_operand_dims: tuple[int, ...]
    index_vector_dim: int


@dataclass(frozen=True)
class ConvolutionNumbers:
    """Name batch (or output feature), feature (or input feature) and spatial dimensions."""

    lhs: tuple[int, ...]
    rhs: tuple[int, ...]
    out: tuple[int, ...]


def read_attributes(operation: Any) -> Mapping[str, Any]:
    """Return an operation's attributes by name; call while its module is alive."""
    # What iteration yields differs between versions of the bindings.
    names = [getattr(entry, "name", entry) for entry in operation.attributes]
    return {str(name): _read(str(name), operation.attributes[name]) for name in sorted(names)}


def _read(name: str, attribute: Any) -> Any:
    if name in _NAMED:
        return _NAMED[name](attribute)
    return _plain(attribute)


def _plain(attribute: Any) -> Any:
    for kind, convert in _KINDS:
        if isinstance(attribute, kind):
            return convert(attribute)
    return str(attribute)


def _dot(attribute: Any) -> DotNumbers:
    numbers = hlo.DotDimensionNumbers(attribute)
    return DotNumbers(
        tuple(numbers.lhs_batching_dimensions),
        tuple(numbers.rhs_batching_dimensions),
        tuple(numbers.lhs_contracting_dimensions),
        tuple(numbers.rhs_contracting_dimensions),
    )


def _gather(attribute: Any) -> GatherNumbers:
    numbers = hlo.GatherDimensionNumbers(attribute)
    return GatherNumbers(
        tuple(numbers.offset_dims),
        tuple(numbers.collapsed_slice_dims),
        tuple(numbers.operand_batching_dims),
        tuple(numbers.start_indices_batching_dims),
        tuple(numbers.start_index_map),
        numbers.index_vector_dim,
    )


def _scatter(attribute: Any) -> ScatterNumbers:
    numbers = hlo.ScatterDimensionNumbers(attribute)
    return ScatterNumbers(
        tuple(numbers.update_window_dims),
        tuple(numbers.inserted_window_dims),
        tuple(numbers.input_batching_dims),
        tuple(numbers.scatter_indices_batching_dims),
        tuple(numbers.scattered_dims_to_operand_dims),
        numbers.index_vector_dim,
    )


def _convolution(attribute: Any) -> ConvolutionNumbers:
    numbers: Any = hlo.ConvDimensionNumbers(attribute)
    return ConvolutionNumbers(
        (
            numbers.input_batch_dimension,
            numbers.input_feature_dimension,
            *numbers.input_spatial_dimensions,
        ),
        (
            numbers.kernel_output_feature_dimension,
            numbers.kernel_input_feature_dimension,
            *numbers.kernel_spatial_dimensions,
        ),
        (
            numbers.output_batch_dimension,
            numbers.output_feature_dimension,
            *numbers.output_spatial_dimensions,
        ),
    )


def _precisions(attribute: Any) -> tuple[str, ...]:
    # By its text: the operators of chlo write StableHLO's words as attributes of their own.
    return tuple(str(x).strip("<>").rpartition(" ")[2] for x in ir.ArrayAttr(attribute))


def _accuracy(attribute: Any) -> str:
    mode = re.search(r"mode\s*=\s*(?:[^\s<>]*<)?(\w+)", str(attribute))
    return mode[1] if mode else str(attribute)


_NAMED: Mapping[str, Callable[[Any], Any]] = {
    "dot_dimension_numbers": _dot,
    "dimension_numbers": lambda a: _convolution(a) if "conv" in str(a)[:20] else _gather(a),
    "scatter_dimension_numbers": _scatter,
    "precision_config": _precisions,
    "comparison_direction": lambda a: hlo.ComparisonDirectionAttr(a).value,
    "compare_type": lambda a: hlo.ComparisonTypeAttr(a).value,
    "result_accuracy": _accuracy,
}
_KINDS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (ir.BoolAttr, lambda a: bool(a.value)),
    (ir.IntegerAttr, lambda a: int(a.value)),
    (ir.FloatAttr, lambda a: float(a.value)),
    (ir.StringAttr, lambda a: str(a.value)),
    (ir.FlatSymbolRefAttr, lambda a: str(a.value)),
    (ir.DenseI64ArrayAttr, tuple),
    (ir.DenseBoolArrayAttr, tuple),
    (ir.ArrayAttr, lambda a: tuple(_plain(x) for x in a)),
    (ir.DictAttr, lambda a: {str(x.name): _plain(x.attr) for x in a}),
    (ir.DenseElementsAttr, constant),
)
