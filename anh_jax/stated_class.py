"""The execution class as an attempt states it: what genesis says, and what became different since.

A run may be resumed on another machine, so genesis alone cannot say what computed a step. An
attempt's environment holds the digest of its class under `class`, and under `class.<name>` each
value that genesis does not have. A class that is not stated equals no other.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax

from anh_jax.environment import environment, execution_class
from attest import canonical
from attest.statements import Attempt, Genesis

_DIGEST = "class"
_PREFIX = "class."
# Values of one fact on several hosts are joined by this, so that no single host has their class.
_APART = " | "


@dataclass(frozen=True)
class ClassMatch:
    """Whether a difference of bits between an attempt's steps and ours would refute it.

    `obstacle` says in words why not; it is empty where both sides have one class and the attempt
    has shown that it repeats itself.
    """

    obstacle: str

    @property
    def comparable(self) -> bool:
        """Tell whether bits must be equal."""
        return not self.obstacle


def joint_class(classes: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the class of a group of hosts; a fact that they do not share names all its values."""
    names = sorted({name for stated in classes for name in stated})
    return {
        name: _APART.join(sorted({stated.get(name, "none") for stated in classes}))
        for name in names
    }


def class_facts(own: Mapping[str, str], genesis: Mapping[str, str]) -> dict[str, str]:
    """Return what an attempt's environment says about its class `own`, beside genesis."""
    facts = {f"{_PREFIX}{name}": own[name] for name in own if own[name] != genesis.get(name)}
    return {_DIGEST: _digest(own), **facts}


def stated_class(attempt: Attempt, genesis: Genesis) -> dict[str, str] | None:
    """Return the class that an attempt states; None where it states none, or two."""
    changed = {
        name.removeprefix(_PREFIX): str(value)
        for name, value in attempt.environment.items()
        if name.startswith(_PREFIX)
    }
    stated = {name: str(value) for name, value in genesis.execution_class.items()} | changed
    return stated if attempt.environment.get(_DIGEST) == _digest(stated) else None


def match_class(attempt: Attempt, genesis: Genesis) -> ClassMatch:
    """Compare this machine with the one that an attempt states (docs/numerics.md, "Exact")."""
    mesh = {"data": attempt.mesh.data, "fsdp": attempt.mesh.fsdp, "tensor": attempt.mesh.tensor}
    own = execution_class(mesh, processes=jax.process_count())
    stated = stated_class(attempt, genesis)
    where = f"attempt {attempt.number}"
    if stated is None:
        return ClassMatch(f"{where} does not state its execution class")
    names = [name for name in {*own, *stated} if own.get(name) != stated.get(name)]
    if names:
        # A fact that both know says more than one that an older version did not state.
        name = min(names, key=lambda name: (name not in own or name not in stated, name))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return ClassMatch(
            f"another execution class: {name} is {own.get(name, 'not stated')!r} here, "
            f"{stated.get(name, 'not stated')!r} in {where}{more}"
        )
    if attempt.processes != jax.process_count():
        return ClassMatch(f"{where} ran in {attempt.processes} processes")
    # The class digests jaxlib; what jax itself asks of the compiler comes with its own version.
    if attempt.environment.get("jax") != environment()["jax"]:
        return ClassMatch(f"another jax: {environment()['jax']} here")
    if attempt.environment.get("selfReplay") != "equal":
        return ClassMatch(f"{where} did not repeat its own gradient bit for bit")
    return ClassMatch("")


def _digest(stated: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical.encode(dict(stated))).hexdigest()
