"""Judges one operator from its operands and results alone: where every dispute ends.

Exact operators are evaluated again and compared; sums and rounding functions are evaluated in
float64 on this host and compared within the worst-case bound (bounds/rounding.py). So whoever holds
operands and results needs neither the trainer's machine nor his own training state.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from anh_jax.bounds.rounding import (
    ALLOWANCES,
    FACTORS,
    Backend,
    Excess,
    exact_excess,
    excess,
    function_bound,
    is_float,
    roundoff,
    sum_bound,
)
from anh_jax.program.interpreter.evaluation import Evaluation, Place
from anh_jax.program.interpreter.operations import (
    Block,
    Operation,
    Program,
    TensorType,
    make_block,
    needed,
)
from anh_jax.program.interpreter.rules import RULES
from attest.numerics_class import ClassRules

Array = NDArray[Any]

# Floating-point operators without rounding. All operators on other types are exact too.
_EXACT = frozenset(
    (
        *("abs", "negate", "sign", "floor", "ceil", "round_nearest_even", "round_nearest_afz"),
        *("maximum", "minimum", "clamp", "select", "remainder", "reduce_precision"),
        *("bitcast_convert", "optimization_barrier", "sharding_constraint", "constant", "iota"),
        *("reshape", "dynamic_reshape", "broadcast_in_dim", "dynamic_broadcast_in_dim"),
        *("transpose", "reverse", "concatenate", "pad", "dynamic_pad", "slice", "dynamic_slice"),
        *("real_dynamic_slice", "dynamic_update_slice", "gather", "dynamic_gather", "sort"),
        *("dynamic_iota", "top_k"),
    )
)
_CONTROL = frozenset(("call", "case", "if", "while"))
# Which operand says how large the result is.
_SHAPE_OPERANDS = {"dynamic_iota": 0, "dynamic_broadcast_in_dim": 1, "dynamic_reshape": 1}
_CONSTANT = "stablehlo.constant"
_EXACT_COMBINERS = frozenset(("", "maximum", "minimum"))


def check_operator(
    program: Program,
    operation: Operation,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    *,
    rules: ClassRules,
    backend: Backend,
) -> Excess | None:
    """Return how far an operator's results are from honest ones; None where no bound is known.

    `program` is the operator's, for its composites. Operands and results are host arrays of the
    operator's own dtypes and sizes.
    """
    constants = _captured_constants(program, operation)
    if constants is None:
        return None  # its region takes values from around it, which nobody has opened
    if not _ends(program, operation):
        return None
    name = base_name(operation)
    # Before anything is computed: a file of few bytes may name a result of terabytes.
    if not _fit(operation, inputs, outputs):
        return Excess(np.inf)
    floats = any(is_float(kind.dtype) for kind in operation.output_types)
    if not floats or name in _EXACT or _moves(operation, name):
        return _exact(program, (*constants, operation), inputs, outputs)
    if len(outputs) != 1 or constants:
        return None
    (committed,) = outputs
    kind = operation.output_types[0].dtype
    if committed.dtype != kind:
        return Excess(np.inf)
    wide = _in_float64(program, operation)
    if name in FACTORS and _combiner(operation, name) == "add":
        bound = sum_bound(name, inputs, wide, rules=rules, output=kind)
    elif name in ALLOWANCES:
        bound = function_bound(name, inputs, wide, backend=backend, output=kind)
    else:
        return None
    if committed.shape != bound.value.shape:
        return Excess(np.inf)
    return excess(committed, bound)


def _fit(operation: Operation, inputs: Sequence[Array], outputs: Sequence[Array]) -> bool:
    """Tell whether results are as many, and of such types and sizes, as the operator gives."""
    kinds = operation.output_types
    if len(outputs) != len(kinds):
        return False
    if not all(k.accepts(x.shape, x.dtype) for k, x in zip(kinds, outputs, strict=True)):
        return False
    place = _SHAPE_OPERANDS.get(base_name(operation))
    return place is None or outputs[0].shape == tuple(inputs[place].ravel().tolist())


def _ends(program: Program, operation: Operation) -> bool:
    """Tell whether an operator is evaluated in one go: no loop, no branch, no call of calls.

    What a hostile program loops over would never end; honest recordings hold each operator of a
    loop or a branch by itself.
    """
    if base_name(operation) in _CONTROL:
        return False
    decomposition = operation.attributes.get("decomposition")
    waiting = list(operation.regions)
    if decomposition is not None:
        waiting.append(program.functions[decomposition])
    while waiting:
        for inner in waiting.pop().operations:
            if base_name(inner) in _CONTROL or "decomposition" in inner.attributes:
                return False
            waiting += inner.regions
    return True


def base_name(operation: Operation) -> str:
    """Return an operator's name without its dialect."""
    return operation.name.rpartition(".")[2]


def _exact(
    program: Program,
    operations: tuple[Operation, ...],
    inputs: Sequence[Array],
    outputs: Sequence[Array],
) -> Excess:
    expected = _alone(program, operations, inputs)
    found = [
        exact_excess(given, value, output=place)
        for place, (given, value) in enumerate(zip(outputs, expected, strict=True))
    ]
    return max(found, key=lambda one: one.value, default=Excess(0.0))


def _moves(operation: Operation, name: str) -> bool:
    """Tell whether an operator on floats moves, chooses or widens them."""
    if name == "convert":
        source, target = operation.input_types[0].dtype, operation.output_types[0].dtype
        return is_float(source) and roundoff(target) <= roundoff(source)
    return name in FACTORS and _combiner(operation, name) in _EXACT_COMBINERS


def _combiner(operation: Operation, name: str) -> str:
    """Return what an operator combines elements by: `add` of products, "" where it replaces."""
    if not operation.regions:
        return "add"
    block = operation.regions[-1]
    if len(operation.output_types) > 1:
        return ""  # which element wins is a comparison
    names = [base_name(inner) for inner in block.operations]
    if not names and block.results == block.arguments[-1:]:
        return ""
    return names[0] if len(names) == 1 else "several"


def _captured_constants(program: Program, operation: Operation) -> tuple[Operation, ...] | None:
    """Return the constants around an operator that its regions read, None where they read more."""
    missing = needed(operation) - set(operation.inputs)
    if not missing:
        return ()
    found: list[Operation] = []
    for block in _blocks(program):
        if any(inner is operation for inner in block.operations):
            producers = (block.producer(number) for number in sorted(missing))
            found = [x for x in producers if x is not None and x.name == _CONSTANT]
    return tuple(found) if len(found) == len(missing) else None


def _blocks(program: Program) -> Iterator[Block]:
    """Yield every block of a program, those of regions included."""
    waiting = list(program.functions.values())
    while waiting:
        block = waiting.pop()
        yield block
        waiting += [region for inner in block.operations for region in inner.regions]


def _alone(
    program: Program, operations: tuple[Operation, ...], inputs: Sequence[Array]
) -> tuple[Array, ...]:
    """Evaluate one operator of a program, the last, on host operands."""
    operation = operations[-1]
    types = operation.input_types
    block = make_block(operation.inputs, types, operations, operation.outputs)
    evaluation = Evaluation(program=program, rules=RULES, around=None, loops="scan", recorder=None)
    with jax.enable_x64(True):
        return tuple(
            np.asarray(x) for x in evaluation.block(block, tuple(inputs), {}, Place("leaf"))
        )


def _in_float64(program: Program, operation: Operation) -> Callable[..., tuple[Array, ...]]:
    wide, name = _widened(operation), base_name(operation)

    def evaluate(*operands: Array) -> tuple[Array, ...]:
        if operation.name.startswith("chlo."):
            # Its decomposition computes in the program's own types.
            with jax.enable_x64(True):
                return (np.asarray(getattr(jax.lax, name)(*map(jnp.asarray, operands))),)
        return _alone(program, (wide,), operands)

    return evaluate


def _widened(operation: Operation) -> Operation:
    """Return the operator on float64 in place of all floats; how it rounds is left out."""
    dropped = ("precision_config", "algorithm", "result_accuracy")
    return dataclasses.replace(
        operation,
        input_types=tuple(map(_wide, operation.input_types)),
        output_types=tuple(map(_wide, operation.output_types)),
        attributes={k: v for k, v in operation.attributes.items() if k not in dropped},
        regions=tuple(map(_wide_block, operation.regions)),
    )


def _wide_block(block: Block) -> Block:
    return dataclasses.replace(
        block,
        argument_types=tuple(map(_wide, block.argument_types)),
        operations=tuple(map(_widened, block.operations)),
    )


def _wide(kind: TensorType) -> TensorType:
    return TensorType(kind.shape, np.dtype(np.float64)) if is_float(kind.dtype) else kind
