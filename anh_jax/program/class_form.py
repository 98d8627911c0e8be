"""Writes a numerics class into a module: every matrix product and convolution says how it rounds.

It works on the module and not on the traced Python, so it holds for every model, forward and
backward. A product of a bf16 class reads float32 arrays whose values were rounded to bfloat16 by
`reduce_precision`, and names the algorithm. The preset alone would not do: on a CPU it is silently
float32; nor would bfloat16 operands: XLA:CPU has no batched product of them with a float32 result,
and may drop a pair of conversions (`xla_allow_excess_precision`), which it never does with
`reduce_precision` (all measured, jax 0.10 and 0.12). Where multipliers take bfloat16, converting
such values is exact.
"""

from typing import Any

from anh_jax.errors import ProgramError
from anh_jax.program import stablehlo
from anh_jax.program.interpreter.bindings import ir
from attest.numerics_class import ClassRules

PRODUCTS = ("stablehlo.dot_general", "stablehlo.convolution", "stablehlo.dynamic_conv")
# What stands in a module for a preset: precision type, components and operations per product.
_ALGORITHMS = {
    "TF32_TF32_F32": ("tf32", 1),
    "BF16_BF16_F32_X3": ("bf16", 3),
    "BF16_BF16_F32": ("bf16", 1),
}
_READ = ("f32", "bf16")


def write_class(module: Any, rules: ClassRules, *, where: str) -> None:
    """Make the module's products those of a class; call inside `stablehlo.context()`.

    Raises:
        ProgramError: an operator that the class cannot express, by name.
    """
    if rules.dot_algorithm == "F32_F32_F32":
        return  # Exported so: precision HIGHEST on every product.
    for operation in list(stablehlo.operations(module)):
        if operation.name not in PRODUCTS:
            continue
        if any(stablehlo.element_type(factor) not in _READ for factor in factors(operation)):
            continue
        if rounds_operands(rules):
            _round_operands(operation)
        _set_algorithm(operation, rules, where=where)


def factors(operation: Any) -> list[Any]:
    """Return the two operands that a product multiplies; a third would be its padding."""
    return list(operation.operands)[:2]


def has_form(operation: Any, rules: ClassRules) -> bool:
    """Tell whether StableHLO can write a product in a class: no convolution names an algorithm."""
    named = operation.name == "stablehlo.dot_general"
    return named or rounds_operands(rules) or algorithm_text(rules) is None


def rounds_operands(rules: ClassRules) -> bool:
    """Tell whether a class's products read operands that were rounded to bfloat16."""
    return rules.dot_algorithm == "BF16_BF16_F32"


def algorithm_text(rules: ClassRules) -> str | None:
    """Return the StableHLO attribute of a class's dot algorithm as MLIR text; None for float32."""
    if rules.dot_algorithm not in _ALGORITHMS:
        return None
    kind, operations = _ALGORITHMS[rules.dot_algorithm]
    return (
        f"#stablehlo.dot_algorithm<lhs_precision_type = {kind}, rhs_precision_type = {kind},"
        " accumulation_type = f32, lhs_component_count = 1, rhs_component_count = 1,"
        f" num_primitive_operations = {operations}, allow_imprecise_accumulation = false>"
    )


def without_form(rules: ClassRules, *, where: str) -> ProgramError:
    """Return the error that says a product has no form in a class."""
    return ProgramError(
        f"{where} has no form in class {rules.name}; write it as shifted slices and a matrix"
        " product, or choose class f32, bf16_f32acc or bf16"
    )


def _set_algorithm(operation: Any, rules: ClassRules, *, where: str) -> None:
    if not has_form(operation, rules):
        raise without_form(rules, where=f"{where}: operator {operation.name}")
    if operation.name == "stablehlo.dot_general":
        text = algorithm_text(rules)
        assert text is not None
        operation.attributes["algorithm"] = ir.Attribute.parse(text)
    one = ir.Attribute.parse("#stablehlo<precision DEFAULT>")
    operation.attributes["precision_config"] = ir.ArrayAttr.get([one, one])


def _round_operands(operation: Any) -> None:
    with ir.InsertionPoint(operation):
        for index, operand in enumerate(factors(operation)):
            operation.operands[index] = _rounded(operand)
    if stablehlo.element_type(operation.results[0]) == "bf16":
        # The product adds in float32, and its result is rounded once.
        result = operation.results[0]
        result.set_type(_typed(result, ir.F32Type.get()))
        with ir.InsertionPoint.after(operation):
            narrow = _converted(result, ir.BF16Type.get())
        result.replace_all_uses_except(narrow, narrow.owner.operation)


def _rounded(operand: Any) -> Any:
    if stablehlo.element_type(operand) == "bf16":
        operand = _converted(operand, ir.F32Type.get())
    bits = ir.IntegerType.get_signless(32)
    rounded = ir.Operation.create(
        "stablehlo.reduce_precision",
        results=[operand.type],
        operands=[operand],
        attributes={
            "exponent_bits": ir.IntegerAttr.get(bits, 8),
            "mantissa_bits": ir.IntegerAttr.get(bits, 7),
        },
    )
    return rounded.result


def _converted(value: Any, element: Any) -> Any:
    return ir.Operation.create(
        "stablehlo.convert", results=[_typed(value, element)], operands=[value]
    ).result


def _typed(value: Any, element: Any) -> Any:
    shaped = ir.RankedTensorType(value.type)
    return ir.RankedTensorType.get(list(shaped.shape), element)
