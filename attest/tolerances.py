"""Whether a contract's tolerances are such that an audit within them says something.

Whoever writes the contract writes its tolerances: with `c = 1e9` every step lies within them. So a
bounded audit counts only where no constant is looser than the usual one of its numerics class, or
where the reader's policy allows the looser one by number. What no number bounds, such as another
reduction model, no policy can allow.
"""

from attest.contract import Numerics
from attest.numerics_class import CLASSES, ClassRules, looser
from attest.trust import NumericsDemand

__all__ = ["why_not_counted"]

# The cap of a policy that bounds a constant; a cap on the unit roundoff bounds every kind of it.
_CAPS = {
    "c": "c",
    "c_row": "cRow",
    "phi": "phi",
    "phi_sum": "phiSum",
    "cap": "cap",
    "a2": "a2",
    "a2_cold": "a2Cold",
    **{
        f"roundoff.{kind}": "unitRoundoff"
        for kind in ("dot", "reduce", "elementwise", "storage", "update")
    },
}


def why_not_counted(numerics: Numerics, demand: NumericsDemand) -> str:
    """Say why bounded audits under these tolerances do not count; "" where they do.

    The policy's caps were held against the contract before (`attest.lineage`): a constant that has
    a cap is below it.
    """
    named = numerics.class_ in demand.classes
    usual = CLASSES.get(numerics.class_)
    if usual is None and not named:
        return f"class {numerics.class_} is unknown, and the policy does not name it"
    capped = {name for name, _ in demand.caps}
    loose = [name for name in _loose(numerics.rules, usual) if _CAPS.get(name) not in capped]
    if numerics.null_gradients and "nullGradients" not in capped:
        loose.append("null gradients")
    if not loose:
        return ""
    class_ = numerics.class_
    return f"tolerances looser than those of {class_}, which the policy does not cap: {loose[0]}"


def _loose(rules: ClassRules, usual: ClassRules | None) -> tuple[str, ...]:
    """Return the constants that need a cap: of an unknown class nothing is usual."""
    return tuple(_CAPS) if usual is None else looser(rules, usual)
