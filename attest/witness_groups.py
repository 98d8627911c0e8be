"""Groups of witness operators, k of n, nested: the quorum rules of C2SP tlog-policy."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from attest.errors import InputError

__all__ = ["WitnessGroup", "check_groups", "fewest", "unmet_group"]


@dataclass(frozen=True, slots=True)
class WitnessGroup:
    """Name a group: it has cosigned where `needed` of its members have.

    A member is an operator or a group before this one.
    """

    name: str
    needed: int
    members: tuple[str, ...]


def check_groups(groups: Sequence[WitnessGroup], operators: Collection[str]) -> None:
    """Check that the groups form trees over the operators.

    Raises:
        InputError: naming the group that is wrong.
    """
    known = set(operators)
    for group in groups:
        if group.name in known:
            raise InputError(f"groups.name: {group.name} names two things")
        if not 1 <= group.needed <= len(group.members):
            raise InputError(
                f"groups.needed: {group.name} asks for {group.needed} of {len(group.members)}"
            )
        if unknown := [member for member in group.members if member not in known]:
            raise InputError(
                f"groups.members: {unknown[0]} of {group.name} is no witness operator and no group "
                "before it"
            )
        known.add(group.name)
    # Each name once, over all groups: nobody's word counts in two places.
    for name, count in Counter(m for group in groups for m in group.members).items():
        if count > 1:
            raise InputError(f"groups.members: {name} is a member twice")


def unmet_group(groups: Sequence[WitnessGroup], operators: Collection[str]) -> WitnessGroup | None:
    """Return the first group, of those inside no other, in which too few have cosigned."""
    met = set(operators)
    for group in groups:
        if sum(member in met for member in group.members) >= group.needed:
            met.add(group.name)
    inner = {member for group in groups for member in group.members}
    outer = (group for group in groups if group.name not in inner)
    return next((group for group in outer if group.name not in met), None)


def fewest(groups: Sequence[WitnessGroup]) -> int:
    """Return how few operators can meet all groups; each name is a member once."""
    least: dict[str, int] = {}
    for group in groups:
        counts = sorted(least.get(member, 1) for member in group.members)
        least[group.name] = sum(counts[: group.needed])
    inner = {member for group in groups for member in group.members}
    return sum(count for name, count in least.items() if name not in inner)
