"""Build a policy from what a relying party types, and say what a policy can and cannot reach."""

import dataclasses
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from attest.errors import AttestError, FormatError, InputError
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, Role, VerifierKey, check_public_key
from attest.level import Level
from attest.numerics_class import CLASSES
from attest.policy import load_policy
from attest.tlog_policy import MAX_TLOG_POLICY_BYTES, TlogPolicy, parse_tlog_policy
from attest.trust import (
    KeyEntry,
    LogEntry,
    NumericsDemand,
    Policy,
    PropertyDemand,
    Requirement,
    WitnessEntry,
)
from attest.witness_groups import WitnessGroup, fewest
from launch.errors import CommandError
from launch.key_home import find_key, locate


@dataclass(frozen=True, slots=True)
class Owned:
    """A key as typed, `KEY=OPERATOR`, taken apart."""

    key: str
    operator: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What the options of `anh policy new` say; None and empty keep what `like` has."""

    like: Path | None = None
    tlog_policy: Path | None = None
    log: str | None = None
    witnesses: Sequence[str] = ()
    quorum: int | None = None
    keys: Sequence[tuple[Role, str]] = ()
    contracts: Sequence[str] = ()
    level: str | None = None
    properties: Sequence[str] = field(default=())
    unmeasured: Sequence[str] = ()


def build(draft: Draft) -> Policy:
    """Make the policy; raises CommandError or InputError naming the option or key that is wrong."""
    base = None if draft.like is None else load_policy(draft.like)
    keys = tuple(_key_entry(role, text) for role, text in draft.keys)
    named = {entry.public for entry in keys}
    kept = () if base is None else tuple(key for key in base.keys if key.public not in named)
    quorum = _quorum(draft, base)
    return Policy(
        log=_log(draft, base),
        witnesses=quorum.witnesses,
        quorum=quorum.least,
        keys=kept + keys,
        contracts=tuple(draft.contracts) or (() if base is None else base.contracts),
        runs=() if base is None else base.runs,
        sources=() if base is None else base.sources,
        numerics=_numerics(draft, base),
        require=_requirement(draft, base),
        groups=quorum.groups,
    )


@dataclass(frozen=True, slots=True)
class _Quorum:
    """Which witnesses there are, and how many of them, or which groups, must cosign."""

    witnesses: tuple[WitnessEntry, ...]
    least: int
    groups: tuple[WitnessGroup, ...] = ()


def _quorum(draft: Draft, base: Policy | None) -> _Quorum:
    if draft.tlog_policy is not None:
        if draft.witnesses or draft.quorum is not None:
            raise CommandError(
                "--from-tlog-policy: its file says which witnesses and how many, so leave out "
                "--witness and --quorum"
            )
        imported = _imported(draft.tlog_policy)
        return _Quorum(imported.witnesses, fewest(imported.groups), imported.groups)
    witnesses = tuple(_witness(text) for text in draft.witnesses)
    groups: tuple[WitnessGroup, ...] = ()
    if not witnesses and base is not None:
        witnesses, groups = base.witnesses, base.groups
    operators = len({witness.operator for witness in witnesses})
    # A majority of operators, so that one careless witness cannot speak for all.
    usual = fewest(groups) if groups else operators // 2 + 1
    return _Quorum(witnesses, usual if draft.quorum is None else draft.quorum, groups)


def _imported(path: Path) -> TlogPolicy:
    with path.open("rb") as stream:
        data = stream.read(MAX_TLOG_POLICY_BYTES + 1)
    try:
        return parse_tlog_policy(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def owned(text: str, option: str) -> Owned:
    """Take `KEY=OPERATOR` apart; raises CommandError naming the option."""
    key, separator, operator = text.rpartition("=")
    if not separator or not key or not operator:
        raise CommandError(f"{option} {text}: write KEY=OPERATOR, for example {option} KEY=acme")
    return Owned(key, operator)


def public_key(text: str, option: str) -> bytes:
    """Read a public key typed as 64 hex digits, a vkey, a key's name or a key file's path."""
    if len(text) == 64 and all(char in "0123456789abcdef" for char in text):
        with _typed(option):
            return check_public_key(bytes.fromhex(text))
    if locate(text) is not None:
        return find_key(text).public
    if text.count("+") >= 2:
        return _vkey(text, option).public
    raise CommandError(
        f"{option} {text}: no public key (64 hex digits), no vkey, no key of yours, no key file"
    )


def _vkey(text: str, option: str) -> VerifierKey:
    with _typed(option):
        return VerifierKey.from_text(text)


@contextmanager
def _typed(option: str) -> Generator[None]:
    """Turn malformed text on the command line into a command that could not run."""
    try:
        yield
    except FormatError as error:
        raise CommandError(f"{option}: {error}") from error


def _key_entry(role: Role, text: str) -> KeyEntry:
    option = f"--{role.value}"
    said = owned(text, option)
    return KeyEntry(role, public_key(said.key, option), said.operator)


def _log(draft: Draft, base: Policy | None) -> LogEntry:
    known = () if draft.tlog_policy is None else _imported(draft.tlog_policy).logs
    if draft.log is None:
        return _log_not_named(known, draft, base)
    said = owned(draft.log, "--log")
    key = _vkey(said.key, "--log")
    if key.algorithm != ALG_ED25519:
        raise CommandError(f"--log {said.key}: a log's vkey has algorithm 0x01, not a witness's")
    if known and key not in known:
        raise CommandError(f"--log {said.key}: is not among the logs of {draft.tlog_policy}")
    return LogEntry(key.name, key, said.operator)


def _log_not_named(known: Sequence[VerifierKey], draft: Draft, base: Policy | None) -> LogEntry:
    if len(known) == 1:
        # The file names no operator: the log's own name stands for whoever runs it.
        return LogEntry(known[0].name, known[0], known[0].name)
    if known:
        names = ", ".join(key.name for key in known[:8])
        raise CommandError(f"{draft.tlog_policy}: names several logs ({names}): choose one, --log")
    if base is None:
        raise CommandError("name the log: --log VKEY=OPERATOR, or --like D/policy.toml")
    return base.log


def _witness(text: str) -> WitnessEntry:
    said = owned(text, "--witness")
    key = _vkey(said.key, "--witness")
    if key.algorithm != ALG_COSIGNATURE:
        raise CommandError(f"--witness {said.key}: a witness's vkey has algorithm 0x04")
    return WitnessEntry(key, said.operator)


def _requirement(draft: Draft, base: Policy | None) -> Requirement:
    required = Requirement() if base is None else base.require
    if draft.level is not None:
        required = dataclasses.replace(required, level=Level[draft.level.upper()])
    if draft.properties:
        required = dataclasses.replace(required, properties=tuple(map(_demand, draft.properties)))
    return required


def _numerics(draft: Draft, base: Policy | None) -> NumericsDemand:
    numerics = NumericsDemand() if base is None else base.numerics
    if unknown := [name for name in draft.unmeasured if name not in CLASSES]:
        raise CommandError(f"--unmeasured {unknown[0]}: the classes are {', '.join(CLASSES)}")
    if draft.unmeasured:
        numerics = dataclasses.replace(numerics, unmeasured=tuple(draft.unmeasured))
    return numerics


def _demand(text: str) -> PropertyDemand:
    name, separator, count = text.partition("=")
    if not name or (separator and not count.isdecimal()):
        raise CommandError(f"--property {text}: write NAME or NAME=OPERATORS, for example acc=2")
    return PropertyDemand(name, int(count) if separator else 1)


def trainer_operators(policy: Policy) -> frozenset[str]:
    """Return the operators whom the policy names as author or run key holder."""
    roles = (Role.AUTHOR, Role.RUN)
    return frozenset(entry.operator for role in roles for entry in policy.of_role(role))


def highest_level(policy: Policy) -> Level:
    """Return the level that the best possible run could reach under the policy.

    Only operators other than the trainer's count: a foreign witness and monitor for `witnessed`,
    a foreign auditor for `sampled`, two for `reproduced`.
    """
    own = trainer_operators(policy)
    if policy.quorum_gap({witness.operator for witness in policy.witnesses} - own):
        return Level.LOGGED
    foreign = {entry.operator for entry in policy.of_role(Role.AUDITOR)} - own
    # Without a foreign monitor omissions are never checked, which holds the level down.
    if not foreign or not {entry.operator for entry in policy.of_role(Role.MONITOR)} - own:
        return Level.WITNESSED
    return Level.SAMPLED if len(foreign) == 1 else Level.REPRODUCED


def shortcomings(policy: Policy) -> list[str]:
    """Return sentences about what the policy does not ask for or cannot see."""
    found: list[str] = []
    if len(policy.operators()) == 1:
        found.append("one operator holds every role: any verdict says integrity, not honesty")
    if not policy.of_role(Role.MONITOR):
        # Where no witness is foreign, the level is below what a missing monitor allows anyway.
        logged = highest_level(policy) is Level.LOGGED
        held = "" if logged else ", so the level is witnessed at most"
        found.append(f"no monitor key: omissions are never checked{held}")
    if not policy.of_role(Role.AUDITOR):
        found.append("no auditor key: no audit counts")
    if not policy.contracts and not policy.runs:
        found.append("any contract of a named author is accepted (no [accept] table)")
    if not policy.numerics.caps:
        found.append("no caps on tolerances: the contract's own are taken as they are")
    if policy.numerics.unmeasured:
        names = ", ".join(policy.numerics.unmeasured)
        found.append(f"bounded audits count where nobody measured the tolerances: {names}")
    return found


def problem(policy: Policy) -> str | None:
    """Return why no run at all could pass, or None."""
    reachable = highest_level(policy)
    if policy.require.level > reachable:
        return (
            f"require.level: no run can be {policy.require.level.text} under this policy, at most "
            f"{reachable.text}; name operators other than the trainer's"
        )
    return None


def refusal(path: Path) -> str | None:
    """Return why a policy that exists cannot be used, or None; unreadable files raise OSError."""
    path.read_bytes()
    try:
        return problem(load_policy(path))
    except AttestError as error:
        return str(error)
