"""Which program writes each path of the state: exactly one rule, or there is no contract.

`copied`: no program writes it. `counter`: `update` adds one. `update`: `update` writes it, judged
by check B. `gradient`: written from forward statistics of `gradient`, judged by check A. A path
that two rules claim, or none, could change unseen.
"""

from collections.abc import Mapping
from typing import Literal

from anh_jax.errors import ProgramError
from anh_jax.program.signature import Leaf, ProgramSignature
from anh_jax.program.tree import Path, path_text
from attest import canonical

Rule = Literal["copied", "counter", "gradient", "update"]

COPIED: frozenset[Path] = frozenset((("key",),))
COUNTERS: frozenset[Path] = frozenset((("step",),))


def state_rules(
    init: ProgramSignature,
    gradient: ProgramSignature,
    update: ProgramSignature,
    *,
    statistics: Mapping[Path, str] | None = None,
) -> dict[str, Rule]:
    """Return the one rule of each state path, by path text.

    `statistics` maps state paths to the forward statistic each is written from.

    Raises:
        ProgramError: a path has no rule or two, or a program takes or gives it in another form.
    """
    state = {leaf.path: leaf for leaf in init.outputs}
    written = {leaf.path: leaf for leaf in update.outputs}
    from_forward = dict(statistics or {})
    for path in (*written, *from_forward):
        if path not in state:
            raise ProgramError(f"state {path_text(path)}: written, but no part of the state")
    _check_forms(state, update.outputs)
    for program in (gradient, update):
        inputs = [leaf for leaf in program.inputs if leaf.path[0] == "state"]
        _check_forms(state, [Leaf(x.path[1:], x.shape, x.dtype, x.spec) for x in inputs])
    _check_statistics(from_forward, gradient)
    return {path_text(path): _rule(path, written, from_forward) for path in state}


def rules_bytes(rules: Mapping[str, Rule]) -> bytes:
    """Encode the rules as canonical JSON."""
    return canonical.encode(dict(rules))


def _rule(path: Path, written: Mapping[Path, Leaf], from_forward: Mapping[Path, str]) -> Rule:
    rules: list[Rule] = []
    if path in COPIED:
        rules.append("copied")
    if path in from_forward:
        rules.append("gradient")
    if path in written:
        rules.append("counter" if path in COUNTERS else "update")
    if len(rules) != 1:
        claims = " and ".join(rules) or "no program"
        raise ProgramError(
            f"state {path_text(path)}: claimed by {claims}; every path needs exactly one rule"
        )
    return rules[0]


def _check_forms(state: Mapping[Path, Leaf], leaves: "list[Leaf] | tuple[Leaf, ...]") -> None:
    for leaf in leaves:
        kept = state.get(leaf.path)
        if kept is None or (kept.shape, kept.dtype, kept.spec) != (
            leaf.shape,
            leaf.dtype,
            leaf.spec,
        ):
            raise ProgramError(
                f"state {leaf.text}: {leaf.dtype}{list(leaf.shape)} in one program,"
                f" {'absent' if kept is None else f'{kept.dtype}{list(kept.shape)}'} in init"
            )


def _check_statistics(from_forward: Mapping[Path, str], gradient: ProgramSignature) -> None:
    names = {leaf.path[1] for leaf in gradient.outputs if leaf.path[0] == "statistics"}
    for path, name in from_forward.items():
        if name not in names:
            raise ProgramError(f"state {path_text(path)}: no forward statistic {name!r}")
