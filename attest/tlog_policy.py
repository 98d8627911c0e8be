"""C2SP tlog-policy: a text of logs, witnesses, groups of them and a quorum, read into records.

    log VKEY [URL]
    witness NAME VKEY [URL]
    group NAME all|any|K NAME...
    quorum NAME|none

Which keys may sign what in a log is not its subject: `policy` is where both come together.
"""

import re
from dataclasses import dataclass, field

from attest.errors import FormatError, InputError
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, VerifierKey
from attest.trust import WitnessEntry
from attest.witness_groups import WitnessGroup, check_groups

__all__ = ["MAX_TLOG_POLICY_BYTES", "TlogPolicy", "parse_tlog_policy"]

MAX_TLOG_POLICY_BYTES = 1 << 20
_NONE = "none"
_THRESHOLD = re.compile(r"[1-9][0-9]{0,8}")
_BLANK = re.compile(r"[ \t]+")


@dataclass(frozen=True, slots=True)
class TlogPolicy:
    """Hold the logs, the witnesses with their names as operators, and the quorum as groups.

    Groups come after those inside them; the last one is the quorum. A quorum of one witness is a
    group of one.
    """

    logs: tuple[VerifierKey, ...]
    witnesses: tuple[WitnessEntry, ...]
    groups: tuple[WitnessGroup, ...]


@dataclass(slots=True)
class _Reading:
    logs: list[VerifierKey] = field(default_factory=list[VerifierKey])
    witnesses: dict[str, VerifierKey] = field(default_factory=dict[str, VerifierKey])
    groups: dict[str, WitnessGroup] = field(default_factory=dict[str, WitnessGroup])
    quorum: str | None = None


def parse_tlog_policy(data: bytes) -> TlogPolicy:
    """Read a policy file; groups that the quorum does not rest on are left out.

    Raises:
        InputError: for any line that the specification does not allow, by its number; for
            `quorum none`, under which a log may show every reader another tree; for names that are
            not printable ASCII, which a verdict could not print.
    """
    if len(data) > MAX_TLOG_POLICY_BYTES:
        raise InputError(f"tlog policy is larger than {MAX_TLOG_POLICY_BYTES} bytes")
    if any(byte < 0x20 and byte not in b"\t\n" or byte == 0x7F for byte in data):
        raise InputError("tlog policy: holds a control character")
    reading = _Reading()
    for number, line in enumerate(data.decode("latin-1").split("\n"), 1):
        words = _BLANK.split(line.strip(" \t"))
        if not words[0] or words[0].startswith("#"):
            continue
        try:
            _read_line(reading, words)
        except (FormatError, InputError) as error:
            raise InputError(f"tlog policy, line {number}: {error}") from None
    return _resolved(reading)


def _read_line(reading: _Reading, words: list[str]) -> None:
    match words:
        case ["log", vkey] | ["log", vkey, _]:
            reading.logs.append(_key(reading, vkey, ALG_ED25519))
        case ["witness", name, vkey] | ["witness", name, vkey, _]:
            key = _key(reading, vkey, ALG_COSIGNATURE)
            reading.witnesses[_new_name(reading, name)] = key
        case ["group", name, threshold, *members] if members:
            group = WitnessGroup(name, _needed(threshold, len(members)), tuple(members))
            check_groups([*reading.groups.values(), group], reading.witnesses)
            reading.groups[_new_name(reading, name)] = group
        case ["quorum", name]:
            if reading.quorum is not None:
                raise InputError("a second quorum line")
            if name not in (_NONE, *reading.witnesses, *reading.groups):
                raise InputError(f"quorum {name[:80]!r} is defined on no line before")
            reading.quorum = name
        case _:
            raise InputError(f"not a line of a tlog policy: {' '.join(words)[:80]!r}")


def _key(reading: _Reading, text: str, algorithm: int) -> VerifierKey:
    key = VerifierKey.from_text(text)
    if key.algorithm != algorithm:
        raise InputError(f"{key.name} has algorithm {key.algorithm:#04x}, not {algorithm:#04x}")
    if key.public in {known.public for known in (*reading.logs, *reading.witnesses.values())}:
        raise InputError(f"the key of {key.name} is there already")
    return key


def _new_name(reading: _Reading, name: str) -> str:
    if not (name.isascii() and name.isprintable()):
        raise InputError("this program takes names of printable ASCII only")
    if name in (_NONE, *reading.witnesses, *reading.groups):
        raise InputError(f"the name {name[:80]!r} is taken")
    return name


def _needed(threshold: str, count: int) -> int:
    if threshold in ("all", "any"):
        return count if threshold == "all" else 1
    if not _THRESHOLD.fullmatch(threshold):
        raise InputError(f"threshold {threshold[:80]!r} is not all, any or a number from 1")
    return int(threshold)


def _resolved(reading: _Reading) -> TlogPolicy:
    if reading.quorum is None:
        raise InputError("tlog policy: has no quorum line")
    if reading.quorum == _NONE:
        raise InputError(
            "tlog policy: 'quorum none' asks for no witness, so the log may show you another tree "
            "than others; name a witness or a group"
        )
    # A name of the file holds no space, so this one is free.
    groups = [WitnessGroup(f"quorum {reading.quorum}", 1, (reading.quorum,))]
    if reading.quorum in reading.groups:
        groups = _inside(reading, reading.quorum)
    return TlogPolicy(
        tuple(reading.logs),
        tuple(WitnessEntry(key, name) for name, key in reading.witnesses.items()),
        tuple(groups),
    )


def _inside(reading: _Reading, quorum: str) -> list[WitnessGroup]:
    """Return the quorum's group and those inside it, in the file's order."""
    wanted = {quorum}
    for group in reversed(reading.groups.values()):
        if group.name in wanted:
            wanted.update(group.members)
    return [group for group in reading.groups.values() if group.name in wanted]
