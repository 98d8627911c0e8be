"""Evidence about states an auditor asked for: what was signed otherwise, and what was withheld.

Two kinds of file, both canonical JSON, both checked offline.

`state equivocation`: the run key signed for a tree another digest than its row commits. Nobody need
be believed: genesis commits state 0, a row commits every later tree, and the claim bears the
run key's signature. A worker's key signed the row; genesis names the run key, which signed the
attempt, which names the worker.

`withheld states`: an auditor says, under his own key, what he asked for and what came back. It is
his word: a server can lie about whose it is, and an auditor about what he asked. So it fails an
audit and refutes nothing.
"""

import base64
import binascii
import re
from dataclasses import dataclass, fields
from typing import cast

from attest import canonical
from attest.check import hold
from attest.envelope import Envelope
from attest.equivocation import check_worker_signed, first_worker
from attest.errors import FormatError
from attest.keys import PrivateKey, check_public_key, verify_signature
from attest.served_tree import PARTS, TreeClaim, hex_digest, hex_signature
from attest.statements import Genesis, Step, decode_statement

EQUIVOCATION_KIND = "state equivocation"
WITHHELD_KIND = "withheld states"
ANSWERS = ("none", "refused", "other bytes", "other digest")
# Genesis, an attempt and a row with the signatures of its hosts; or many entries of withheld trees.
MAX_BYTES = 4 << 20
_CHECK = "equivocation"
_DOMAIN = b"anh v1 withheld states\x00"
_EQUIVOCATION_FIELDS = frozenset(
    ("attempt", "claim", "genesis", "kind", "record", "signature", "version")
)
_WITHHELD_FIELDS = frozenset(("key", "kind", "report", "signature", "version"))
_PRINTABLE = re.compile(r"[ -~]{0,400}")


@dataclass(frozen=True, slots=True)
class SignedClaim:
    """A claim and the run key's signature over it."""

    claim: TreeClaim
    signature: bytes


@dataclass(frozen=True, slots=True)
class CommittedBy:
    """The signed statements that commit a tree of a run.

    `attempt` and `record` are those of its row; both are None for state 0, which genesis commits.
    """

    genesis: Envelope
    attempt: Envelope | None = None
    record: Envelope | None = None


@dataclass(frozen=True, slots=True)
class WithheldTree:
    """One thing that was asked for and not shown, as the auditor reports it.

    `row` is the hash of the row that commits the tree (of state 0: the run id); `committed` the
    digest in it. `answer` is one of ANSWERS; `digest` that of what was answered, or empty. `path`
    and `tile` name the place at fault, where it is one.
    """

    part: str
    step: int
    row: str
    committed: str
    answer: str
    words: str
    path: str
    tile: tuple[int, ...] | None
    digest: str


@dataclass(frozen=True, slots=True)
class WithheldReport:
    """What an auditor reports of one audit: whom he asked (`source`, free text), and when.

    `at` counts seconds since 1970.
    """

    run: str
    auditor: str
    source: str
    at: int
    trees: tuple[WithheldTree, ...]


def encode_state_equivocation(signed: SignedClaim, by: CommittedBy) -> bytes:
    """Write a claim of the run key, and what the run committed instead."""
    return canonical.encode(
        {
            "attempt": None if by.attempt is None else _base64(by.attempt.to_bytes()),
            "claim": signed.claim.fields(),
            "genesis": _base64(by.genesis.to_bytes()),
            "kind": EQUIVOCATION_KIND,
            "record": None if by.record is None else _base64(by.record.to_bytes()),
            "signature": signed.signature.hex(),
            "version": 1,
        }
    )


def check_state_equivocation(data: bytes) -> TreeClaim:
    """Return the claim of the run key that contradicts what its run committed.

    Raises:
        FormatError: if the bytes are no such file.
        RefusedError: if the keys did not sign it, or both can be true.
    """
    value = _object(data, EQUIVOCATION_KIND, _EQUIVOCATION_FIELDS)
    claim = TreeClaim.from_fields(value["claim"])
    genesis = Envelope.from_bytes(_unbase64(value["genesis"]))
    opening = decode_statement(genesis.payload)
    if not isinstance(opening, Genesis):
        raise FormatError("evidence: genesis is another statement", code="evidence")
    hold(genesis.record_hash().hex() == claim.run, _CHECK, "the claim is of another run")
    claim.check(bytes.fromhex(opening.run_key), hex_signature(value["signature"]))
    if claim.step == 0:
        stated = claim.part == "state" and claim.row == claim.run
        committed = opening.state_root if stated else None
    else:
        attempt = Envelope.from_bytes(_unbase64(value["attempt"]))
        record = Envelope.from_bytes(_unbase64(value["record"]))
        committed = _row_digest(claim, genesis, attempt, record)
    hold(committed is not None, _CHECK, "the row commits no such digest")
    hold(committed != claim.root, _CHECK, "the claim is what the run committed")
    return claim


def _row_digest(
    claim: TreeClaim, genesis: Envelope, attempt: Envelope, record: Envelope
) -> str | None:
    """Return the digest that the row of the claim's step commits."""
    check_worker_signed(record, first_worker(genesis, attempt, claim.run))
    said = decode_statement(record.payload)
    if not isinstance(said, Step):
        raise FormatError("evidence: record is no step", code="evidence")
    hold(said.attempt == attempt.record_hash().hex(), _CHECK, "the row is of another attempt")
    row = said.row
    hold(row.hash().hex() == claim.row, _CHECK, "the claim is about another row")
    hold((row.run, row.step) == (claim.run, claim.step), _CHECK, "the row is of another step")
    return row.state_root if claim.part == "state" else row.gradient_root


def encode_withheld(report: WithheldReport, key: PrivateKey) -> bytes:
    """Write and sign what an auditor asked for and was not shown."""
    fields = _report_fields(report)
    return canonical.encode(
        {
            "key": key.public.hex(),
            "kind": WITHHELD_KIND,
            "report": fields,
            "signature": key.sign(_DOMAIN + canonical.encode(fields)).hex(),
            "version": 1,
        }
    )


@dataclass(frozen=True, slots=True)
class SignedReport:
    """A report and the public key whose signature over it verifies."""

    report: WithheldReport
    key: bytes


def check_withheld(data: bytes) -> SignedReport:
    """Return an auditor's report and the key that signed it; whose key that is, a policy says.

    Raises:
        FormatError: if the bytes are no such file.
        RefusedError: if the signature does not verify.
    """
    value = _object(data, WITHHELD_KIND, _WITHHELD_FIELDS)
    public = check_public_key(bytes.fromhex(hex_digest(value["key"], "key")))
    report = _report(value["report"])
    message = _DOMAIN + canonical.encode(value["report"])
    verify_signature(public, message, hex_signature(value["signature"]))
    return SignedReport(report, public)


def _report_fields(report: WithheldReport) -> dict[str, canonical.JSON]:
    trees: list[canonical.JSON] = [
        {field.name: getattr(tree, field.name) for field in fields(tree)} for tree in report.trees
    ]
    return {
        "at": report.at,
        "auditor": report.auditor,
        "run": report.run,
        "source": report.source,
        "trees": trees,
    }


def _report(value: canonical.JSON) -> WithheldReport:
    names = {field.name for field in fields(WithheldReport)}
    if not isinstance(value, dict) or value.keys() != names:
        raise FormatError("evidence: report is no report", code="fields")
    at, trees = value["at"], value["trees"]
    if type(at) is not int or at < 0 or not isinstance(trees, list) or not trees:
        raise FormatError("evidence: report has no time or no trees", code="fields")
    return WithheldReport(
        run=hex_digest(value["run"], "run"),
        auditor=_text(value["auditor"]),
        source=_text(value["source"]),
        at=at,
        trees=tuple(_tree(tree) for tree in trees),
    )


def _tree(value: canonical.JSON) -> WithheldTree:
    names = {field.name for field in fields(WithheldTree)}
    if not isinstance(value, dict) or value.keys() != names:
        raise FormatError("evidence: a withheld tree has other fields", code="fields")
    step, tile, digest = value["step"], value["tile"], value["digest"]
    if value["part"] not in PARTS or value["answer"] not in ANSWERS:
        raise FormatError("evidence: an unknown part or answer", code="fields")
    if type(step) is not int or step < 0 or not (tile is None or _is_counts(tile)):
        raise FormatError("evidence: a step or a tile is no count", code="fields")
    return WithheldTree(
        part=cast(str, value["part"]),
        step=step,
        row=hex_digest(value["row"], "row"),
        committed=hex_digest(value["committed"], "committed"),
        answer=cast(str, value["answer"]),
        words=_text(value["words"]),
        path=_text(value["path"]),
        tile=None if tile is None else tuple(cast("list[int]", tile)),
        digest="" if digest == "" else hex_digest(digest, "digest"),
    )


def _is_counts(value: canonical.JSON) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _text(value: canonical.JSON) -> str:
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        raise FormatError("evidence: not a line of at most 400 printable characters", code="text")
    return value


def _object(data: bytes, kind: str, names: frozenset[str]) -> dict[str, canonical.JSON]:
    value = canonical.decode(data, max_bytes=MAX_BYTES)
    if not isinstance(value, dict) or value.keys() != names or value["kind"] != kind:
        raise FormatError(f"not a file of the kind {kind!r}", code="evidence")
    if value["version"] != 1:
        raise FormatError("evidence of an unknown version", code="version")
    return value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: canonical.JSON) -> bytes:
    try:
        return base64.b64decode(cast(str, text), validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise FormatError("evidence: broken base64", code="base64") from None
