"""Propagates variances of roundoff through a program, as if all roundings were independent.

A deterministic cross-check of noise and of random derivatives: no sample, no seed. What it leaves
out is correlation (x - x has variance), so it mostly lies above them. It works on the jaxpr of an
interpreted program; an operator that it has no rule for is refused by name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from anh_jax.bounds.perturbation import is_float, is_narrow, unit_roundoff
from anh_jax.bounds.roundoff_hook import COUNTED
from anh_jax.bounds.variance_rules import RULES, Rule, Slopes, Varied
from anh_jax.errors import ProgramError
from anh_jax.program.tree import Tree
from attest.numerics_class import ClassRules

_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def roundoff_variance(
    function: Callable[..., Tree], *inputs: Tree, rules: ClassRules
) -> tuple[Tree, Tree]:
    """Return `function(*inputs)` and, for each output, the variance of its roundoff in float32.

    Raises ProgramError naming a primitive without a rule. Traceable; inputs are taken as exact.
    """
    with jax.enable_x64(True):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*inputs)
        leaves = jax.tree.leaves(inputs)
        found = _closed(closed, [Varied(x, None) for x in leaves], rules)
        structure = jax.tree.structure(shapes)
        values = jax.tree.unflatten(structure, [x.value for x in found])
        variances = jax.tree.unflatten(structure, [x.square() for x in found])
    return values, variances


def _closed(closed: ClosedJaxpr, inputs: Sequence[Varied], rules: ClassRules) -> list[Varied]:
    constants = [Varied(x, None) for x in closed.consts]
    return _jaxpr(closed.jaxpr, [*constants, *inputs], rules)


def _jaxpr(jaxpr: Jaxpr, inputs: Sequence[Varied], rules: ClassRules) -> list[Varied]:
    values: dict[Any, Varied] = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))

    def read(atom: Any) -> Varied:
        return Varied(atom.val, None) if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        outputs = _equation(equation, [read(x) for x in equation.invars], rules)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _equation(equation: JaxprEqn, inputs: list[Varied], rules: ClassRules) -> list[Varied]:
    name = equation.primitive.name
    if name in _CALLS:
        return _called(equation, inputs, rules)
    if name == "scan":
        return _scanned(equation, inputs, rules)
    if all(x.variance is None for x in inputs) and not _rounds_anything(equation):
        return [Varied(x, None) for x in _values(equation, inputs)]
    rule: Rule | None = RULES.get(name)
    if rule is None:
        raise ProgramError(
            f"operator {name}: variance has no rule for it; use noise or derivatives"
        )
    outputs = _values(equation, inputs)
    slopes = Slopes(equation, inputs, outputs, rules)
    return [_stored(x) for x in rule(slopes)]


def _rounds_anything(equation: JaxprEqn) -> bool:
    return any(is_float(x.aval) for x in equation.outvars)


def _stored(found: Varied) -> Varied:
    """Add the rounding of a dtype that is narrower than float32."""
    if not is_float(found.value) or found.variance is None or not is_narrow(found.value.dtype):
        return found
    wide = found.value.astype(jnp.float32)
    return found.plus(jnp.square(wide * unit_roundoff(found.value.dtype)) * COUNTED**2)


def _values(equation: JaxprEqn, inputs: Sequence[Varied]) -> list[Any]:
    found = equation.primitive.bind(*(x.value for x in inputs), **equation.params)
    return list(found) if equation.primitive.multiple_results else [found]


def _called(equation: JaxprEqn, inputs: list[Varied], rules: ClassRules) -> list[Varied]:
    inner = equation.params[_CALLS[equation.primitive.name]]
    if isinstance(inner, Jaxpr):
        return _jaxpr(inner, inputs, rules)
    return _closed(inner, inputs, rules)


def _scanned(equation: JaxprEqn, inputs: list[Varied], rules: ClassRules) -> list[Varied]:
    """Carry variances through the loop beside the values."""
    params: Mapping[str, Any] = equation.params
    fixed, count = params["num_consts"], params["num_carry"]
    constants, carry, each = inputs[:fixed], inputs[fixed : fixed + count], inputs[fixed + count :]

    def body(state: Any, at: Any) -> Any:
        found = _closed(
            params["jaxpr"],
            [*constants, *(Varied(*x) for x in state), *(Varied(*x) for x in at)],
            rules,
        )
        pairs = [x.pair() for x in found]
        return pairs[:count], pairs[count:]

    last, stacked = lax.scan(
        body,
        [x.pair() for x in carry],
        [x.pair() for x in each],
        length=params["length"],
        reverse=params["reverse"],
    )
    return [Varied(*x) for x in (*last, *stacked)]
