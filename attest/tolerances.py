"""Whether a contract's tolerances are such that an audit within them says something.

Whoever writes the contract writes its tolerances: with `c = 1e9` every step lies within them. So a
bounded audit counts only where no constant is looser than the usual one of its numerics class, or
where the reader's policy allows the looser one by number. What no number bounds, such as another
reduction model, no policy can allow. And the usual constants are only worth something where
somebody held honest replays to them, on such backends: elsewhere they are a guess, which counts
where the policy names the class.
"""

from collections.abc import Iterable

from attest.contract import Numerics
from attest.numerics_class import CLASSES, ClassRules, backend_pair, looser
from attest.statements import Attempt, Audit, Genesis, Statement
from attest.trust import NumericsDemand

__all__ = ["backends", "why_not_counted"]

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
_BACKEND = "class.backend"


def why_not_counted(numerics: Numerics, demand: NumericsDemand, pairs: Iterable[str]) -> str:
    """Say why bounded audits under these tolerances do not count; "" where they do.

    The policy's caps were held against the contract before (`attest.lineage`): a constant that has
    a cap is below it. `pairs` are the backends that such an audit compares (`backends`).
    """
    named = numerics.class_ in demand.classes
    usual = CLASSES.get(numerics.class_)
    if usual is None and not named:
        return f"class {numerics.class_} is unknown, and the policy does not name it"
    capped = {name for name, _ in demand.caps}
    loose = [name for name in _loose(numerics.rules, usual) if _CAPS.get(name) not in capped]
    if numerics.null_gradients and "nullGradients" not in capped:
        loose.append("null gradients")
    class_ = numerics.class_
    if loose:
        return (
            f"tolerances looser than those of {class_}, which the policy does not cap: {loose[0]}"
        )
    # A class that is not in the table is named and capped by whoever relies on it.
    if usual is None or class_ in demand.unmeasured:
        return ""
    unknown = sorted(set(pairs) - usual.measured)
    return f"tolerances of {class_} were not measured between {unknown[0]}" if unknown else ""


def backends(audit: Audit, trainer: Iterable[Statement]) -> frozenset[str]:
    """Return the pairs of backends that an audit compares: its own, and each that trained.

    `trainer` holds the run's genesis and its attempts. Both sides' are their own word; one that is
    not stated is `unstated`, which nobody measured.
    """
    said = tuple(trainer)
    opening = next(each for each in said if isinstance(each, Genesis))
    first = str(opening.execution_class.get("backend", "unstated"))
    attempts = [each.environment for each in said if isinstance(each, Attempt)]
    trained = {facts.get(_BACKEND, first) for facts in attempts} or {first}
    own = audit.environment.get(_BACKEND, "unstated")
    return frozenset(backend_pair(each, own) for each in trained)


def _loose(rules: ClassRules, usual: ClassRules | None) -> tuple[str, ...]:
    """Return the constants that need a cap: of an unknown class nothing is usual."""
    return tuple(_CAPS) if usual is None else looser(rules, usual)
