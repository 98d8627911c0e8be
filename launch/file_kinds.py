"""Say what a file of ours holds, by its content: its form is checked, nothing in it is verified."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from attest import canonical
from attest.errors import FormatError
from launch.description import Description, readable, unknown
from launch.errors import CommandError
from launch.output import flat
from launch.refutation_kinds import describe_refutation
from launch.text_kinds import describe_private_key, describe_text

MAX_BYTES = 64 << 20
_ARTIFACT_MAGIC = b"ML\xefR"
_KEY_HEAD = b"-----BEGIN OPENSSH PRIVATE KEY-----"


def describe(path: Path) -> Description:
    """Recognise and summarise a file or a run directory.

    Raises CommandError for a file that is none of ours, and FormatError for one that is but is
    damaged.
    """
    if path.is_dir():
        return _run_directory(path)
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if data.startswith(_KEY_HEAD):
        return describe_private_key(path)
    if data.startswith(_ARTIFACT_MAGIC):
        digest = hashlib.sha256(data).hexdigest()
        return Description(
            "StableHLO program (portable artifact)",
            [("bytes", f"{len(data):,}"), ("sha256", digest)],
            ["its signature and id lie beside it"],
        )
    if data[:1] == b"{":
        return _json(path, data)
    return describe_text(path, data)


# --- JSON ---


def _json(path: Path, data: bytes) -> Description:
    first, newline, rest = data.partition(b"\n")
    # A step file whose only line is torn has no newline, yet begins like an envelope.
    value = _parsed(path, first if newline and rest else data)
    if not isinstance(value, dict):
        raise unknown(path)
    fields = cast("dict[str, Any]", value)
    if newline:
        return _json_lines(path, fields)
    for names, kind in _KINDS:
        if names <= fields.keys():
            return kind(path, data)
    raise unknown(path)


def _json_lines(path: Path, first: Mapping[str, Any]) -> Description:
    if {"payload", "payloadType", "signatures"} <= first.keys():
        return _step_file(path)
    if "step" in first:
        return _metrics(path)
    raise unknown(path)


def _parsed(path: Path, data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise FormatError(f"{path}: looks like JSON but is damaged or cut off") from None


def _envelope(path: Path, data: bytes) -> Description:
    from attest.envelope import Envelope
    from attest.statements import decode_statement

    envelope = Envelope.from_bytes(data)
    statement = decode_statement(envelope.payload)
    payload = cast(
        "dict[str, Any]", canonical.decode(envelope.payload, max_bytes=len(envelope.payload))
    )
    facts = [("record", envelope.record_hash().hex())]
    facts += [("signed by", signature.keyid) for signature in envelope.signatures]
    for subject in payload["subject"]:
        ((algorithm, digest),) = subject["digest"].items()
        facts.append((f"subject {subject['name']}", f"{algorithm} {digest}"))
    facts += [(name, readable(value)) for name, value in flat(payload["predicate"]).items()]
    return Description(f"signed {statement.KIND} statement", facts)


def _proof(path: Path, data: bytes) -> Description:
    from attest.checkpoint import Checkpoint
    from attest.note import Note
    from attest.proof import parse_proof

    proof = parse_proof(data)
    note = Note.from_bytes(proof.checkpoint)
    head = Checkpoint.from_text(note.text)
    facts = [
        ("bytes", f"{len(data):,}"),
        ("log", head.origin),
        ("size", str(head.size)),
        ("root", head.root.hex()),
        ("signed by", ", ".join(signature.signer.name for signature in note.signatures)),
    ]
    facts += [(record.where, record.hash) for record in proof.records]
    return Description("run proof", facts, ["'anh verify FILE --policy P' checks it"])


def _contract(path: Path, data: bytes) -> Description:
    from attest.contract import Contract

    contract = Contract.from_bytes(data)
    value = canonical.decode(data, max_bytes=len(data))
    facts = [("id", contract.id)]
    return Description("contract", facts + [(n, readable(v)) for n, v in flat(value).items()])


def _opening(path: Path, data: bytes) -> Description:
    from attest.digest_tree import path_text
    from attest.opening import Opening

    return Description("opening of one tile", _opening_facts(Opening.from_bytes(data), path_text))


def _opened_tile(path: Path, data: bytes) -> Description:
    from attest.digest_tree import path_text
    from launch.opened_tile import OpenedTile

    opened = OpenedTile.from_bytes(data)
    facts = [("run", opened.run), *_opening_facts(opened.opening, path_text)]
    notes = ["'anh verify FILE --policy P --proof run.proof' checks it"]
    return Description("opened tile of a run's state", facts, notes)


def _opening_facts(opening: Any, path_text: Callable[[Any], str]) -> list[tuple[str, str]]:
    header = opening.header
    return [
        ("tensor", path_text(header.path)),
        ("dtype", header.dtype),
        ("shape", " x ".join(map(str, header.dims)) or "scalar"),
        ("grid", " x ".join(map(str, header.grid)) or "1"),
        ("tile", ", ".join(map(str, opening.index)) or "0"),
        ("tile bytes", f"{len(opening.tile):,}"),
        ("step", str(opening.step)),
        ("alg", opening.alg),
    ]


def _state_equivocation(path: Path, data: bytes) -> Description:
    from attest.served_tree import TreeClaim

    value = cast("dict[str, Any]", canonical.decode(data, max_bytes=MAX_BYTES))
    facts = [
        (name, str(said)) for name, said in TreeClaim.from_fields(value["claim"]).fields().items()
    ]
    return Description(
        "a state signed otherwise than its row", facts, ["'anh verify FILE' checks it"]
    )


def _withheld(path: Path, data: bytes) -> Description:
    value = cast("dict[str, Any]", canonical.decode(data, max_bytes=MAX_BYTES))
    facts = [("signed by", str(value["key"]))]
    facts += [(name, readable(said)) for name, said in flat(value["report"]).items()]
    return Description(
        "report of withheld states", facts, ["'anh verify FILE --policy P' checks it"]
    )


def _shown_tree(path: Path, data: bytes) -> Description:
    from attest.served_tree import ShownTree

    shown = ShownTree.from_bytes(data)
    manifest = shown.manifest
    facts = [
        ("run", manifest.run),
        ("row", manifest.row),
        ("tree", f"{manifest.part} {manifest.step}"),
        ("tensors", str(len(manifest.tensors))),
        ("signature", "none" if shown.signature is None else shown.signature.hex()),
    ]
    return Description("manifest of a state or gradient", facts, ["anh audit --states checks it"])


def _signature(path: Path, data: bytes) -> Description:
    value = cast("dict[str, Any]", canonical.decode(data, max_bytes=MAX_BYTES))
    facts = [("name", str(value["name"])), ("StableHLO", str(value["stablehlo"]))]
    for side in ("inputs", "outputs"):
        for leaf in value[side]:
            place = "/".join(map(str, leaf["path"])) or "(only)"
            shape = " x ".join(map(str, leaf["shape"])) or "scalar"
            facts.append((f"{side[:-1]} {place}", f"{leaf['dtype']} {shape}"))
    return Description("program signature", facts)


# The names that tell a kind of JSON file; the first set that a file has decides.
_KINDS: tuple[tuple[set[str], Callable[[Path, bytes], Description]], ...] = (
    ({"payload", "payloadType", "signatures"}, _envelope),
    ({"checkpoint", "records", "nodes"}, _proof),
    ({"artifact", "format", "genesis"}, describe_refutation),
    ({"attempt", "claim", "record"}, _state_equivocation),
    ({"key", "report", "signature"}, _withheld),
    ({"manifest", "signature"}, _shown_tree),
    ({"line", "opening", "run"}, _opened_tile),
    ({"header", "setSiblings", "tile"}, _opening),
    ({"arguments", "inputs", "outputs", "stablehlo"}, _signature),
    ({"batchSize", "programs", "steps"}, _contract),
)


# --- files of lines ---


def _step_file(path: Path) -> Description:
    from attest import step_file
    from attest.statements import Segment, Step, decode_statement

    steps: list[int] = []
    segments = 0
    signers: set[str] = set()
    attempts: set[str] = set()
    for envelope in step_file.read(path):
        signers.update(signature.keyid for signature in envelope.signatures)
        statement = decode_statement(envelope.payload)
        if isinstance(statement, Step):
            attempts.add(statement.attempt)
            steps.append(statement.row.step)
        elif isinstance(statement, Segment):
            attempts.add(statement.attempt)
            steps.extend((statement.first, statement.last))
            segments += 1
    torn = not path.read_bytes().endswith(b"\n")
    facts = [("segments", str(segments)) if segments else ("rows", str(len(steps)))]
    facts += [("steps", f"{steps[0]} to {steps[-1]}")] if steps else []
    facts += [("attempt", attempt) for attempt in sorted(attempts)]
    facts += [("signed by", keyid) for keyid in sorted(signers)]
    notes = ["the last line is torn: it was never acknowledged and does not count"] if torn else []
    return Description("segment file" if segments else "step file", facts, notes)


def _metrics(path: Path) -> Description:
    from launch.metrics_rows import read_metrics_rows

    rows = read_metrics_rows(path)
    facts = [("rows", str(len(rows)))]
    if rows:
        facts.append(("steps", f"{rows[0].step} to {rows[-1].step}"))
        if rows[-1].loss is not None:
            facts.append(("last loss", f"{rows[-1].loss:.6g}"))
    return Description("metrics (unsigned)", facts)


# --- directories ---


def _run_directory(path: Path) -> Description:
    from attest.contract import Contract

    if not (path / "contract.json").is_file():
        raise CommandError(f"{path}: a directory without contract.json; name a run or a file in it")
    contract = Contract.from_bytes((path / "contract.json").read_bytes())
    statements = sorted(file.stem for file in (path / "statements").glob("*.json"))
    facts = [
        ("contract", contract.id),
        ("steps", str(contract.steps)),
        ("statements", ", ".join(statements) or "none yet"),
        ("run proof", "yes" if (path / "run.proof").is_file() else "not yet"),
    ]
    return Description("run directory", facts, ["'anh report D' makes a page of it"])
