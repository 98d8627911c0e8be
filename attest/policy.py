"""`policy.toml`, version 1: what a relying party trusts and demands, as text.

    version = 1
    quorum = 1
    max_status_age = 604800

    [log]
    origin = "log.example/runs"
    vkey = "log.example/runs+5f3c0c1e+AQ..."
    operator = "log.example"

    [[witnesses]]
    vkey = "w.example+d41e9006+BO..."
    operator = "w.example"

    [[groups]]                   # absent: any `quorum` operators are enough
    name = "abroad"
    needed = 1
    members = ["w.example"]      # operators, or groups before this one

    [[keys]]
    role = "author"              # author, run, auditor, monitor, reporter
    public = "9f1c..."           # 64 hex digits, or a vkey
    operator = "lab"
    from_index = 0               # first log index the key may sign at
    to_index = 1000              # the first it may not
    owner = "77ab..."            # offline key whose events end this key and name others

    [accept]                     # absent: any contract of a named author, any run of it
    contracts = ["..."]
    runs = ["..."]

    [sample]                     # absent: an audit's sample rests on its auditor's own intent
    sources = ["..."]            # public keys of auditors above

    [numerics]
    classes = ["f32"]
    min_k = 459
    bad_fraction = 0.01
    caps = { c = 4.0, cRow = 10.0 }
    unmeasured = ["tf32"]        # bounded audits count though nobody measured honest replays

    [require]
    level = "sampled"
    properties = [{ name = "accuracy", operators = 1 }]

Names of `run` keys pin the run key; without one, any run key that a genesis names is taken, and the
trainer's operator is then the trainer's own word.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from attest.errors import FormatError, InputError
from attest.keys import ALG_ED25519, Role, VerifierKey, check_public_key
from attest.level import Level
from attest.toml_table import Table
from attest.trust import (
    CAP_FIELDS,
    DEFAULT_STATUS_AGE,
    KEY_ROLES,
    KeyEntry,
    LogEntry,
    NumericsDemand,
    Policy,
    PropertyDemand,
    Requirement,
    WitnessEntry,
)
from attest.witness_groups import WitnessGroup

__all__ = ["MAX_POLICY_BYTES", "load_policy", "parse_policy", "policy_text", "self_policy"]

MAX_POLICY_BYTES = 1 << 20
_HEX = "0123456789abcdef"


def load_policy(path: str | Path) -> Policy:
    """Read a policy file.

    Raises:
        InputError: if it cannot be read; for an unknown key or a bad value, naming it.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read policy {path}: {error.strerror}") from None
    if len(data) > MAX_POLICY_BYTES:
        raise InputError(f"policy {path} is larger than {MAX_POLICY_BYTES} bytes")
    try:
        return parse_policy(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_policy(text: str) -> Policy:
    """Read a policy's text.

    Raises:
        InputError: for an unknown key or a bad value, naming it.
    """
    try:
        values = tomllib.loads(text)
    # The parser recurses on nested arrays, and converts integers of any length.
    except (ValueError, RecursionError) as error:
        raise InputError(f"not TOML: {error}") from None
    names = ("version", "quorum", "max_status_age", "log", "witnesses", "groups", "keys")
    top = Table(values, "", (*names, "accept", "sample", "numerics", "require"))
    if top.integer("version") != 1:
        raise InputError("version: this program reads policies of version 1")
    accept = top.table("accept", ("contracts", "runs"))
    sample = top.table("sample", ("sources",))
    keys = tuple(_key(table) for table in top.tables("keys", _KEY_FIELDS))
    return Policy(
        log=_log(top.table("log", ("origin", "vkey", "operator"))),
        witnesses=tuple(_witness(t) for t in top.tables("witnesses", ("vkey", "operator"))),
        quorum=top.integer("quorum"),
        keys=keys,
        contracts=tuple(_digest(accept, "contracts", v) for v in accept.texts("contracts")),
        runs=tuple(_digest(accept, "runs", v) for v in accept.texts("runs")),
        sources=tuple(_source(sample, value, keys) for value in sample.texts("sources")),
        numerics=_numerics(top.table("numerics", _NUMERICS_FIELDS)),
        max_status_age=top.integer("max_status_age", DEFAULT_STATUS_AGE),
        require=_require(top.table("require", ("level", "properties"))),
        groups=tuple(_group(t) for t in top.tables("groups", ("name", "needed", "members"))),
    )


def policy_text(policy: Policy) -> str:
    """Write a policy so that `parse_policy` gives it back."""
    lines = ["version = 1", f"quorum = {policy.quorum}"]
    lines += [f"max_status_age = {policy.max_status_age}", "", "[log]"]
    lines += [f"origin = {_quoted(policy.log.origin)}"]
    lines += _owner_lines(policy.log.key, policy.log.operator)
    for witness in policy.witnesses:
        lines += ["", "[[witnesses]]", *_owner_lines(witness.key, witness.operator)]
    for group in policy.groups:
        lines += ["", "[[groups]]", f"name = {_quoted(group.name)}", f"needed = {group.needed}"]
        lines += [f"members = {_list(group.members)}"]
    for entry in policy.keys:
        lines += ["", "[[keys]]", *_key_lines(entry)]
    if policy.contracts or policy.runs:
        lines += ["", "[accept]"]
        lines += [f"contracts = {_list(policy.contracts)}"] if policy.contracts else []
        lines += [f"runs = {_list(policy.runs)}"] if policy.runs else []
    if policy.sources:
        public = {entry.keyid: entry.public.hex() for entry in policy.keys}
        lines += ["", "[sample]", f"sources = {_list(public[s] for s in policy.sources)}"]
    lines += ["", "[numerics]", *_numerics_lines(policy.numerics)]
    lines += ["", "[require]", f"level = {_quoted(policy.require.level.text)}"]
    for demand in policy.require.properties:
        lines += ["", "[[require.properties]]", f"name = {_quoted(demand.name)}"]
        lines += [f"operators = {demand.operators}"]
    return "\n".join(lines) + "\n"


def self_policy(
    *,
    operator: str,
    origin: str,
    log: VerifierKey,
    witness: VerifierKey,
    keys: Mapping[Role, bytes],
) -> Policy:
    """Make the policy a run writes about itself: one operator in all roles, `logged` required.

    It lets the trainer check its own files; every verdict under it says `logged (self)`.
    """
    return Policy(
        log=LogEntry(origin, log, operator),
        witnesses=(WitnessEntry(witness, operator),),
        quorum=1,
        keys=tuple(KeyEntry(role, public, operator) for role, public in keys.items()),
    )


# --- reading ---

_NUMERICS_FIELDS = ("classes", "min_k", "bad_fraction", "caps", "unmeasured")
_KEY_FIELDS = ("role", "public", "operator", "from_index", "to_index", "owner")


def _log(table: Table) -> LogEntry:
    return LogEntry(table.text("origin"), _vkey(table, "vkey"), table.text("operator"))


def _witness(table: Table) -> WitnessEntry:
    return WitnessEntry(_vkey(table, "vkey"), table.text("operator"))


def _group(table: Table) -> WitnessGroup:
    return WitnessGroup(table.text("name"), table.integer("needed"), table.texts("members"))


def _key(table: Table) -> KeyEntry:
    return KeyEntry(
        role=Role(table.choice("role", tuple(role.value for role in KEY_ROLES))),
        public=_public(table, "public", table.text("public")),
        operator=table.text("operator"),
        from_index=table.integer("from_index", 0),
        to_index=table.integer("to_index") if table.has("to_index") else None,
        owner=_public(table, "owner", table.text("owner")) if table.has("owner") else None,
    )


def _numerics(table: Table) -> NumericsDemand:
    default = NumericsDemand()
    caps = table.table("caps", CAP_FIELDS)
    return NumericsDemand(
        classes=table.texts("classes"),
        min_k=table.integer("min_k", default.min_k),
        bad_fraction=table.number("bad_fraction", default.bad_fraction),
        caps=tuple((name, caps.number(name)) for name in CAP_FIELDS if caps.has(name)),
        unmeasured=table.texts("unmeasured"),
    )


def _require(table: Table) -> Requirement:
    levels = tuple(level.text for level in Level)
    name = table.choice("level", levels, Level.LOGGED.text)
    demands = tuple(
        PropertyDemand(demand.text("name"), demand.integer("operators", 1))
        for demand in table.tables("properties", ("name", "operators"))
    )
    return Requirement(Level[name.upper()], demands)


def _vkey(table: Table, name: str) -> VerifierKey:
    try:
        return VerifierKey.from_text(table.text(name))
    except FormatError as error:
        raise table.bad(name, str(error)) from None


def _public(table: Table, name: str, text: str) -> bytes:
    try:
        if "+" not in text:
            return check_public_key(bytes.fromhex(_digest(table, name, text)))
        key = VerifierKey.from_text(text)
    except FormatError as error:
        raise table.bad(name, str(error)) from None
    if key.algorithm != ALG_ED25519:
        raise table.bad(name, f"{key.name} is a witness's key (0x04)")
    return key.public


def _source(table: Table, text: str, keys: tuple[KeyEntry, ...]) -> str:
    public = _public(table, "sources", text)
    for entry in keys:
        if entry.public == public and entry.role is Role.AUDITOR:
            return entry.keyid
    raise table.bad("sources", f"{text} is no auditor key of this policy")


def _digest(table: Table, name: str, text: str) -> str:
    if len(text) != 64 or any(c not in _HEX for c in text):
        raise table.bad(name, f"{text[:80]!r} is not 64 lower-case hex digits")
    return text


# --- writing ---


def _owner_lines(key: VerifierKey, operator: str) -> list[str]:
    return [f"vkey = {_quoted(key.to_text())}", f"operator = {_quoted(operator)}"]


def _key_lines(entry: KeyEntry) -> list[str]:
    lines = [f"role = {_quoted(entry.role.value)}", f"public = {_quoted(entry.public.hex())}"]
    lines += [f"operator = {_quoted(entry.operator)}"]
    lines += [f"from_index = {entry.from_index}"] if entry.from_index else []
    lines += [] if entry.to_index is None else [f"to_index = {entry.to_index}"]
    lines += [] if entry.owner is None else [f"owner = {_quoted(entry.owner.hex())}"]
    return lines


def _numerics_lines(numerics: NumericsDemand) -> list[str]:
    lines = [f"classes = {_list(numerics.classes)}"] if numerics.classes else []
    lines += [f"min_k = {numerics.min_k}", f"bad_fraction = {numerics.bad_fraction!r}"]
    if numerics.caps:
        caps = ", ".join(f"{name} = {value!r}" for name, value in numerics.caps)
        lines += [f"caps = {{ {caps} }}"]
    if numerics.unmeasured:
        lines += [f"unmeasured = {_list(numerics.unmeasured)}"]
    return lines


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(_quoted(value) for value in values)}]"


def _quoted(text: str) -> str:
    # Names are printable ASCII (Table.text): of these TOML escapes the quote and the backslash.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
