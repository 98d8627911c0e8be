"""Refuses programs that do not round as their contract's numerics class says, by operator name.

A contract's tolerances follow from its class: a program that sums in bfloat16, or multiplies in
TF32 under the name of float32, would make honest executors disagree by more than them.
"""

from collections.abc import Mapping
from typing import Any

from anh_jax.errors import ProgramError
from anh_jax.program import class_form, stablehlo
from anh_jax.program.module_checks import open_checked
from anh_jax.program.signature import StoredProgram
from attest.numerics_class import ClassRules

_NARROW = frozenset(("bf16", "f16", "f8E4M3FN", "f8E5M2", "f8E4M3", "f8E3M4", "f8E8M0FNU"))
# Operators with a body that combines elements, and those that choose among them whatever the body.
_COMBINING = frozenset(f"stablehlo.{x}" for x in ("reduce", "reduce_window", "scatter"))
_CHOOSING = frozenset(("chlo.top_k", "stablehlo.sort", "stablehlo.select_and_scatter"))
_COMPARING = frozenset(f"stablehlo.{x}" for x in ("maximum", "minimum", "compare"))
_CLASSED = ("gradient", "evaluate")
# Multiply, and hold no attribute that names a class: an older form, and one that compilers put in
# the place of its decomposition.
_NAMELESS = frozenset(("stablehlo.dot", "chlo.ragged_dot"))


def check_class(programs: Mapping[str, StoredProgram], rules: ClassRules) -> None:
    """Check that a contract's programs round as `rules` say.

    Raises:
        ProgramError: names the program, the operator and what to do.
    """
    for stored in programs.values():
        _check_masters(stored)
        with stablehlo.context():
            module = open_checked(stored)
            for operation in stablehlo.operations(module):
                where = f"program {stored.name}: operator {operation.name}"
                _check_sums(operation, where)
                _check_narrow(operation, stored.name, rules, where)
                if stored.name in _CLASSED:
                    _check_nameless(operation, where)
                    _check_product(operation, rules, where)


def _check_masters(stored: StoredProgram) -> None:
    for leaf in (*stored.signature.inputs, *stored.signature.outputs):
        held = {"parameters", "optimizer", "gradient"} & set(leaf.path[:2])
        if held and leaf.dtype in ("bfloat16", "float16"):
            raise ProgramError(
                f"program {stored.name}: {leaf.text} is {leaf.dtype}; parameters, optimizer and"
                " gradient need float32, from which a model may cast"
            )


def _check_sums(operation: Any, where: str) -> None:
    narrow = _narrow_of(operation.operands) or _narrow_of(operation.results)
    if narrow is None:
        return
    if operation.name in class_form.PRODUCTS:
        if found := _narrow_of(operation.results):
            raise ProgramError(
                f"{where} accumulates in {found}; ask for a float32 result"
                " (preferred_element_type) and round that"
            )
        return
    body = _combined(operation) if operation.name in _COMBINING else None
    if operation.name in _CHOOSING or body in _COMPARING:
        raise ProgramError(
            f"{where} chooses by comparing {narrow}, where ties are common; compare in float32"
        )
    if body is not None:
        raise ProgramError(
            f"{where} accumulates in {narrow} (its body is {body}); convert to float32 before it,"
            " and gather or broadcast before rounding, whose backward passes are sums"
        )


def _combined(operation: Any) -> str | None:
    """Return the first operator of the body that is more than moving data, with narrow operands."""
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                if inner.operation.name != "stablehlo.return" and _narrow_of(
                    inner.operation.operands
                ):
                    return inner.operation.name
    return None


def _check_narrow(operation: Any, program: str, rules: ClassRules, where: str) -> None:
    found = _narrow_of(operation.results)
    stores = rules.roundoff.storage == 2.0**-8 and program in _CLASSED
    if found is None or (found == "bf16" and stores):
        return
    raise ProgramError(
        f"{where} gives {found} in class {rules.name};"
        " choose class bf16 for bfloat16 activations, or compute in float32"
    )


def _check_nameless(operation: Any, where: str) -> None:
    composed = stablehlo.attribute_texts(operation).get("name", "").strip('"')
    if {operation.name, composed} & _NAMELESS:
        named = f"{where} {composed}".rstrip()
        raise ProgramError(
            f"{named} multiplies and names no algorithm or precision that executors follow;"
            " write it as masks and dot_general"
        )


def _check_product(operation: Any, rules: ClassRules, where: str) -> None:
    if operation.name not in class_form.PRODUCTS:
        return
    factors = class_form.factors(operation)
    kinds = [stablehlo.element_type(factor) for factor in factors]
    if "f32" not in kinds and "bf16" not in kinds:
        return
    if not class_form.has_form(operation, rules):
        raise class_form.without_form(rules, where=where)
    texts = stablehlo.attribute_texts(operation)
    algorithm = class_form.algorithm_text(rules)
    expected = algorithm if operation.name == "stablehlo.dot_general" else None
    precise = algorithm is not None or texts.get("precision_config", "").count("HIGHEST") == 2
    if texts.get("algorithm") != expected or not precise:
        raise ProgramError(
            f"{where} has algorithm {texts.get('algorithm', 'none')} and precision"
            f" {texts.get('precision_config', 'none')}, not those of class {rules.name};"
            " leave precision to the contract's class"
        )
    if class_form.rounds_operands(rules) and not all(map(_is_rounded, factors)):
        raise ProgramError(
            f"{where} reads operands that are not rounded to bfloat16, as class {rules.name} says;"
            " prepare the contract anew"
        )


def _is_rounded(operand: Any) -> bool:
    owner = getattr(operand.owner, "operation", operand.owner)
    if getattr(owner, "name", None) != "stablehlo.reduce_precision":
        return False
    texts = stablehlo.attribute_texts(owner)
    return (texts["exponent_bits"], texts["mantissa_bits"]) == ("8 : i32", "7 : i32")


def _narrow_of(values: Any) -> str | None:
    kinds = [stablehlo.element_type(value) for value in values]
    return next((kind for kind in kinds if kind in _NARROW), None)
