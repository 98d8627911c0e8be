"""A refutation of an update: one element whose new value does not follow from what was committed.

    {"artifact": base64, "attempt": envelope, "before": row or null, "config": {...},
     "constants": base64, "contract": {...}, "element", "format": "anh step refutation v1",
     "genesis": envelope, "openings": {"after": [...], "before": [...], "gradient": [...]},
     "path": [key], "row": envelope, "rules": {...}, "signature": base64}

It is made from committed digests alone: no recording, and no word of the trainer's. The row of step
t names by hash the row before it; these two, or genesis for step 1, commit the state before, the
gradient and the state after, and each opened tile leads to one of these roots. The contract names
the update program (`signature`, `artifact`), its constants of each step, the rule of each path and
the configuration, whose optimizer is the second stage of check B. `element` is counted in C order.
What remains is to take the update of this one element: `anh_jax.audit.step_refutation` does. That a
copied path or a counter has another value than its rule gives is seen here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from attest import canonical
from attest.canonical import JSON
from attest.digest_tree import Path, path_text
from attest.errors import FormatError
from attest.file_fields import (
    hold,
    json_of,
    read_bytes,
    read_count,
    read_list,
    read_object,
    text,
    write_object,
)
from attest.opened_element import Element, by_path
from attest.opening import Opening, verify_opening
from attest.refutation import program_id
from attest.signed_step import STEP_FIELDS, AccusedStep, SignedStep, verify_step
from attest.statements import Row

FORMAT = "anh step refutation v1"
_FIELDS = STEP_FIELDS | frozenset(
    (
        *("artifact", "before", "config", "constants", "element", "format", "openings", "path"),
        *("rules", "signature"),
    )
)
_SIDES = ("after", "before", "gradient")
_MAX_OPENINGS = 64
_RULES = ("copied", "counter", "update")


@dataclass(frozen=True, slots=True)
class Openings:
    """The opened tiles around one element, as files hold them, by what commits them."""

    before: tuple[bytes, ...]
    gradient: tuple[bytes, ...]
    after: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class StepParts:
    """The stored parts of the contract that say how a state follows from the one before.

    `signature` and `artifact` are the update program's bytes, `constants` the table's, `rules` and
    `config` canonical JSON.
    """

    signature: bytes
    artifact: bytes
    constants: bytes
    rules: bytes
    config: bytes


@dataclass(frozen=True, slots=True)
class StepRefutation:
    """Hold one element of an update, opened; `before` is the row before, None for step 1."""

    signed: SignedStep
    before: Row | None
    parts: StepParts
    path: Path
    element: int
    openings: Openings

    def to_bytes(self) -> bytes:
        """Write the file as canonical JSON; FormatError where it would be too large."""
        parts = self.parts
        value: dict[str, JSON] = {
            **self.signed.fields(),
            "artifact": text(parts.artifact),
            "before": None if self.before is None else json_of(self.before.to_bytes()),
            "config": json_of(parts.config),
            "constants": text(parts.constants),
            "element": self.element,
            "format": FORMAT,
            "openings": {
                name: [json_of(opening) for opening in getattr(self.openings, name)]
                for name in _SIDES
            },
            "path": list(self.path),
            "rules": json_of(parts.rules),
            "signature": text(parts.signature),
        }
        return write_object(value, what=f"the tiles around {path_text(self.path)} are")

    @classmethod
    def from_bytes(cls, data: bytes) -> "StepRefutation":
        """Read the file without judging it; FormatError for any other bytes."""
        value = read_object(data, fields=_FIELDS, form=FORMAT)
        before, sides = value["before"], value["openings"]
        if not isinstance(sides, dict) or tuple(sorted(sides)) != _SIDES:
            raise FormatError("refutation: openings have other names", code="fields")
        opened = {name: _openings(sides[name], name) for name in _SIDES}
        return cls(
            signed=SignedStep.from_fields(value),
            before=None if before is None else Row.from_bytes(canonical.encode(before)),
            parts=StepParts(
                signature=read_bytes(value["signature"], "signature"),
                artifact=read_bytes(value["artifact"], "artifact"),
                constants=read_bytes(value["constants"], "constants"),
                rules=canonical.encode(value["rules"]),
                config=canonical.encode(value["config"]),
            ),
            path=_path(value["path"]),
            element=read_count(value["element"], "element"),
            openings=Openings(**opened),
        )


@dataclass(frozen=True, slots=True)
class ShownStep:
    """What a verified file shows: the elements by the paths of their tensors, and their rule."""

    accused: AccusedStep
    rule: str
    before: Mapping[Path, Element]
    gradient: Mapping[Path, Element]
    after: Mapping[Path, Element]


def verify_step_refutation(file: StepRefutation) -> ShownStep:
    """Check all that needs no arithmetic: signatures, ids of stored parts, every opened tile.

    Raises:
        RefusedError: naming the check that failed.
        FormatError: a part is none of its kind.
    """
    accused = verify_step(file.signed)
    _check_parts(file)
    row, genesis = accused.row, accused.genesis
    hold(row.state_root is not None, "row", "commits no state")
    roots = {
        "before": _root_before(file, accused),
        "gradient": row.gradient_root,
        "after": cast(str, row.state_root),
    }
    steps = {"before": row.step - 1, "gradient": row.step, "after": row.step}
    found: dict[str, tuple[Opening, ...]] = {}
    for name in _SIDES:
        root = bytes.fromhex(roots[name])
        tiles: tuple[bytes, ...] = getattr(file.openings, name)
        found[name] = tuple(verify_opening(x, root=root, alg=genesis.alg) for x in tiles)
        hold(all(x.step == steps[name] for x in found[name]), name, "is of another step")
    sides = {name: by_path(found[name], file.element) for name in _SIDES}
    hold(sides["before"].keys() == sides["after"].keys(), "openings", "are of other tensors")
    hold(file.path in sides["after"], "openings", f"{path_text(file.path)} is not among them")
    rules = json_of(file.parts.rules)
    rule = rules.get(path_text(file.path)) if isinstance(rules, dict) else None
    hold(rule in _RULES, "rules", f"{path_text(file.path)} has no rule that a file can show")
    return ShownStep(accused, cast(str, rule), **sides)


def broken_rule(shown: ShownStep, path: Path) -> str:
    """Say how a copied path or a counter breaks its rule; empty where it does not.

    For a path of the rule `update` only its form is looked at.
    """
    old, new = shown.before[path], shown.after[path]
    if old.form != new.form:
        return f"{path_text(path)}: another shape or dtype than in the state before"
    if shown.rule == "copied" and old.data != new.data:
        return f"{path_text(path)}: no program writes it, and it changed"
    if shown.rule == "counter":
        count = int.from_bytes(old.data, "little") + 1
        if new.data != (count % 256 ** len(old.data)).to_bytes(len(old.data), "little"):
            found = int.from_bytes(new.data, "little")
            return f"{path_text(path)}: counts {found} after {count - 1}"
    return ""


def _check_parts(file: StepRefutation) -> None:
    contract, parts = file.signed.contract, file.parts
    program = program_id(parts.signature, parts.artifact)
    hold(program == contract.programs.update, "program", "is not the contract's update")
    for name in ("constants", "rules", "config"):
        digest = hashlib.sha256(getattr(parts, name)).hexdigest()
        hold(digest == getattr(contract, name), name, "are not those that the contract names")


def _root_before(file: StepRefutation, accused: AccusedStep) -> str:
    row, before = accused.row, file.before
    hold((before is None) == (row.step == 1), "before", "step 1 follows genesis, others a row")
    if before is None:
        return accused.genesis.state_root
    hold(before.hash().hex() == row.prev, "before", "is not the row that this one follows")
    hold(before.state_root is not None, "before", "commits no state")
    return cast(str, before.state_root)


def _openings(value: JSON, name: str) -> tuple[bytes, ...]:
    return tuple(canonical.encode(x) for x in read_list(value, name, longest=_MAX_OPENINGS))


def _path(value: JSON) -> Path:
    keys = read_list(value, "path", longest=64)
    if not keys or not all(type(key) in (str, int) for key in keys):
        raise FormatError("refutation: path holds no keys", code="fields")
    return tuple(cast("list[str | int]", keys))
