"""Who audits: a key, and the operator whom policies name for it."""

from dataclasses import dataclass
from pathlib import Path

from attest.envelope import Envelope, sign
from attest.keys import PrivateKey, Role
from attest.policy import load_policy
from attest.statements import Statement, encode_statement
from attest.trust import Policy
from launch.errors import CommandError
from launch.key_home import find_key


@dataclass(frozen=True, slots=True)
class AuditorName:
    """A key, its operator, and whether it is the run's own auditor key."""

    key: PrivateKey
    operator: str
    own: bool

    def sign(self, statement: Statement) -> Envelope:
        """Sign a statement with the auditor's key."""
        return sign(encode_statement(statement), [self.key])


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says about who audits and for whom; None where it says nothing."""

    key: str | None = None
    operator: str | None = None
    policy: Path | None = None


def read_policy(asked: Asked) -> Policy | None:
    """Read the policy whose sources and sizes the audit follows, if one is named."""
    return None if asked.policy is None else load_policy(asked.policy)


def auditor_name(directory: Path, asked: Asked, policy: Policy | None, trainer: str) -> AuditorName:
    """Return who signs: the named key, or the run's own auditor key in its trainer's name.

    The run's own is made where there is none. Raises CommandError for a key of one's own without
    an operator, or one that the policy does not name as an auditor's.
    """
    if asked.key is None:
        if asked.operator is not None:
            raise CommandError("--operator names the owner of --key: give a key of your own too")
        return AuditorName(_run_key(directory), trainer, own=True)
    key = find_key(asked.key)
    entry = None if policy is None else policy.find(key.keyid, Role.AUDITOR)
    if policy is not None and entry is None:
        raise CommandError(
            f"{asked.policy}: names no auditor key {key.public.hex()}; a receipt by it would count "
            "for nothing there"
        )
    named = None if entry is None else entry.operator
    operator = asked.operator or named
    if operator is None:
        raise CommandError("--key needs --operator (or --policy): the name policies give your key")
    if named is not None and operator != named:
        raise CommandError(f"--operator {operator}: the policy gives this key to {named}")
    return AuditorName(key, operator, own=False)


def _run_key(directory: Path) -> PrivateKey:
    path = directory / "keys" / "auditor"
    if not path.is_file():
        # The trainer's own auditor: it counts for nobody else, and its policy says so.
        PrivateKey.generate().save(path, "auditor")
    return PrivateKey.load(path)
