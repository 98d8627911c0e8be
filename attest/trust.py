"""What a relying party trusts: a log, witnesses, keys with their operators, and what it demands.

Frozen records; `policy` reads and writes them as TOML. A name of an *operator* is the policy's
word: assurance counts operators, never keys, and only those other than the trainer's.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from attest.errors import InputError
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, Role, VerifierKey, keyid
from attest.level import Level
from attest.witness_groups import WitnessGroup, check_groups, unmet_group

__all__ = [
    "CAP_FIELDS",
    "KEY_ROLES",
    "Ending",
    "KeyEntry",
    "LogEntry",
    "NumericsDemand",
    "Policy",
    "PropertyDemand",
    "Requirement",
    "WitnessEntry",
]

# The roles of `[[keys]]`; the log and the witnesses have places of their own, worker keys are
# vouched for by the run key in each attempt.
KEY_ROLES = (Role.AUTHOR, Role.RUN, Role.AUDITOR, Role.MONITOR, Role.REPORTER)
# Numbers of the contract that widen what an audit accepts, by their names in its `numerics`.
CAP_FIELDS = (
    "unitRoundoff",
    "c",
    "cRow",
    "phi",
    "phiSum",
    "cap",
    "a2",
    "a2Cold",
    "nullGradients",
)
DEFAULT_STATUS_AGE = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class LogEntry:
    """Name the log: its origin line, its key, who runs it."""

    origin: str
    key: VerifierKey
    operator: str


@dataclass(frozen=True, slots=True)
class WitnessEntry:
    """Name a witness: its cosigning key and who runs it."""

    key: VerifierKey
    operator: str


@dataclass(frozen=True, slots=True)
class Ending:
    """Hold an owner's word that a key signs nothing from `index` on, logged at index `logged`."""

    index: int
    logged: int


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """Name a key: the one role it has, who holds it, and the log indices it may sign at.

    `owner` is the public key whose key events are obeyed: endings of this key, and new keys of the
    same role and operator. `endings` come from the log, never from a policy file.
    """

    role: Role
    public: bytes
    operator: str
    from_index: int = 0
    to_index: int | None = None
    owner: bytes | None = None
    endings: tuple[Ending, ...] = ()

    @property
    def keyid(self) -> str:
        """Return the hex SHA-256 of the public key."""
        return keyid(self.public)

    def covers(self, index: int) -> bool:
        """Say whether the key may sign the record at a log index."""
        return self._in_range(index) and all(index < ending.index for ending in self.endings)

    def accuses(self, index: int) -> bool:
        """Say whether the record at a log index counts against a run.

        That one also counts which was struck out after it had been logged: else whoever signed
        what he regrets would call the key stolen.
        """
        return self._in_range(index) and all(
            index < max(ending.index, ending.logged) for ending in self.endings
        )

    def _in_range(self, index: int) -> bool:
        return self.from_index <= index and (self.to_index is None or index < self.to_index)


@dataclass(frozen=True, slots=True)
class NumericsDemand:
    """Bound what an audit may accept: numerics classes, least k, largest tolerances.

    A cap also allows what it bounds: a bounded audit under looser constants than the usual ones of
    its class counts only where each of them has a cap (`attest.tolerances`). `unmeasured` names
    classes whose bounded audits count between backends that nobody has measured them on too.
    `bad_fraction` is the f of the printed miss probability; an empty `classes` accepts any.
    """

    classes: tuple[str, ...] = ()
    min_k: int = 1
    bad_fraction: float = 0.01
    caps: tuple[tuple[str, float], ...] = ()
    unmeasured: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PropertyDemand:
    """Demand a property of the contract, met in the judgement of so many foreign operators.

    With 0 operators the trainer's own word (`asserted`) is enough.
    """

    name: str
    operators: int = 1


@dataclass(frozen=True, slots=True)
class Requirement:
    """Hold what makes exit code 0."""

    level: Level = Level.LOGGED
    properties: tuple[PropertyDemand, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """Hold a relying party's trust; construction refuses what no verdict could rest on.

    Empty `contracts` and `runs` accept any of a named author. Empty `sources` means that each
    audit's sample rests on its own auditor's intent; otherwise exactly these auditor keyids are the
    sources of every sample. `max_status_age` is seconds of witness time. `groups` ask for more than
    the count `quorum` does: each that lies in no other must have cosigned.

    Raises:
        InputError: naming the key that is wrong.
    """

    log: LogEntry
    witnesses: tuple[WitnessEntry, ...]
    quorum: int
    keys: tuple[KeyEntry, ...]
    contracts: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    numerics: NumericsDemand = NumericsDemand()
    max_status_age: int = DEFAULT_STATUS_AGE
    require: Requirement = Requirement()
    groups: tuple[WitnessGroup, ...] = ()

    def __post_init__(self) -> None:
        _check_log_keys(self)
        _check_quorum(self)
        _check_keys(self)
        _check_numbers(self)

    def quorum_gap(self, cosigners: Collection[str]) -> str:
        """Say what a quorum lacks where these operators cosigned; "" if nothing."""
        if len(cosigners) < self.quorum:
            return f"{len(cosigners)} witness operators cosigned, the policy asks for {self.quorum}"
        group = unmet_group(self.groups, cosigners)
        if group is None:
            return ""
        return f"of group {group.name} fewer members cosigned than the {group.needed} asked for"

    def find(self, keyid: str, role: Role) -> KeyEntry | None:
        """Return the entry of a key in a role, or None."""
        for entry in self.keys:
            if entry.role is role and entry.keyid == keyid:
                return entry
        return None

    def of_role(self, role: Role) -> tuple[KeyEntry, ...]:
        """Return the entries of a role."""
        return tuple(entry for entry in self.keys if entry.role is role)

    def public_keys(self) -> frozenset[bytes]:
        """Return every public key the policy names, whatever its role."""
        witnesses = {witness.key.public for witness in self.witnesses}
        owners = {entry.owner for entry in self.keys if entry.owner is not None}
        return frozenset({self.log.key.public} | witnesses | owners | {e.public for e in self.keys})

    def operators(self) -> frozenset[str]:
        """Return every operator the policy names."""
        witnesses = {witness.operator for witness in self.witnesses}
        return frozenset({self.log.operator} | witnesses | {e.operator for e in self.keys})

    def sample_sources(self, auditor: str) -> frozenset[str]:
        """Return the keyids whose nonces draw the sample of an auditor (a keyid)."""
        return frozenset(self.sources) or frozenset({auditor})


def _check_log_keys(policy: Policy) -> None:
    if policy.log.key.algorithm != ALG_ED25519:
        raise InputError("log.vkey: a log's key has algorithm 0x01, this one is a witness's")
    # The checkpoint's first line is the name its log signs under.
    if policy.log.origin != policy.log.key.name:
        raise InputError(f"log.origin: log.vkey is of {policy.log.key.name}, not of this origin")
    for witness in policy.witnesses:
        if witness.key.algorithm != ALG_COSIGNATURE:
            raise InputError(f"witnesses.vkey: {witness.key.name} is no cosigning key (0x04)")
    # Signature lines are told apart by key name and 4-byte hash: two keys alike would be one.
    names = Counter((k.name, k.key_hash) for k in _note_keys(policy))
    for (name, _), count in names.items():
        if count > 1:
            raise InputError(f"witnesses.vkey: two keys named {name} share a key hash")


def _note_keys(policy: Policy) -> list[VerifierKey]:
    return [policy.log.key, *(witness.key for witness in policy.witnesses)]


def _check_quorum(policy: Policy) -> None:
    operators = {witness.operator for witness in policy.witnesses}
    # `quorum none` of tlog-policy is refused: without a witness the log may show each reader
    # another tree.
    if not 1 <= policy.quorum <= len(operators):
        raise InputError(
            f"quorum: {policy.quorum} is not between 1 and the {len(operators)} witness operators"
        )
    check_groups(policy.groups, operators)


def _check_keys(policy: Policy) -> None:
    publics = [key.public for key in _note_keys(policy)] + [e.public for e in policy.keys]
    for public, count in Counter(publics).items():
        if count > 1:
            raise InputError(f"keys.public: {public.hex()} is named twice; one key, one role")
    for entry in policy.keys:
        if entry.role not in KEY_ROLES:
            raise InputError(f"keys.role: {entry.role.value} keys have no place under [[keys]]")
        empty = entry.to_index is not None and entry.to_index <= entry.from_index
        if empty or entry.from_index < 0:
            raise InputError(f"keys.to_index: key {entry.public.hex()} has an empty index range")
    _check_owners(policy.keys, frozenset(publics))
    if not policy.of_role(Role.AUTHOR):
        raise InputError("keys: name the key of the contract's author (role = 'author')")
    auditors = {entry.keyid for entry in policy.of_role(Role.AUDITOR)}
    if unknown := sorted(set(policy.sources) - auditors):
        raise InputError(f"sample.sources: {unknown[0]} is no auditor key of this policy")


def _check_owners(keys: tuple[KeyEntry, ...], others: frozenset[bytes]) -> None:
    operators: dict[bytes, str] = {}
    for entry in keys:
        if entry.owner is None:
            continue
        if entry.owner in others:
            raise InputError(f"keys.owner: {entry.owner.hex()} has another role; one key, one role")
        if operators.setdefault(entry.owner, entry.operator) != entry.operator:
            raise InputError(f"keys.owner: {entry.owner.hex()} owns keys of two operators")


def _check_numbers(policy: Policy) -> None:
    if not 0.0 < policy.numerics.bad_fraction <= 1.0:
        raise InputError("numerics.bad_fraction: must be above 0 and at most 1")
    if policy.numerics.min_k < 1:
        raise InputError("numerics.min_k: must be at least 1")
    for name, _ in policy.numerics.caps:
        if name not in CAP_FIELDS:
            raise InputError(f"numerics.caps.{name}: the caps are {', '.join(CAP_FIELDS)}")
    if policy.max_status_age < 1:
        raise InputError("max_status_age: must be at least 1 second")
    auditors = {entry.operator for entry in policy.of_role(Role.AUDITOR)}
    for demand in policy.require.properties:
        if not 0 <= demand.operators <= len(auditors):
            raise InputError(
                f"require.properties.operators: {demand.name} asks for {demand.operators} of "
                f"{len(auditors)} auditor operators"
            )
