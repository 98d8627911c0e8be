import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pytest

from attest.canonical import hex_float
from attest.errors import FormatError
from attest.keys import PrivateKey, Role
from attest.schema import TEXT, json_name, record
from attest.statements import (
    Counts,
    ExportedFile,
    Line,
    Threshold,
    Worst,
    decode_statement,
    encode_statement,
)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def public(name: str) -> str:
    return PrivateKey(hashlib.sha256(name.encode()).digest()).public.hex()


Change = tuple[str, Callable[[Any], Any]]

WRONG_FIELDS: dict[str, Change] = {
    "upper-case digest": ("genesis", lambda s: replace(s, plan=s.plan.upper())),
    "bytes for a digest": ("genesis", lambda s: replace(s, plan=bytes(32))),
    "number for text": ("genesis", lambda s: replace(s, trainer=1)),
    "two lines of text": ("genesis", lambda s: replace(s, trainer="a\nb")),
    "text past its length": ("genesis", lambda s: replace(s, trainer="a" * 201)),
    "none for a mapping": ("genesis", lambda s: replace(s, environment=None)),
    "small-order run key": ("genesis", lambda s: replace(s, run_key="00" * 32)),
    "policy of no steps": ("genesis", lambda s: replace(s, digest_policy="every 0")),
    "unknown hash": ("genesis", lambda s: replace(s, alg="md5")),
    "list for a tuple": ("attempt", lambda s: replace(s, worker_keys=list(s.worker_keys))),
    "no axis": ("attempt", lambda s: replace(s, mesh=replace(s.mesh, data=0))),
    "float metric": ("final", lambda s: replace(s, metrics={"loss": 0.5})),
    "decimal metric": ("final", lambda s: replace(s, metrics={"loss": "0.5"})),
    "unprintable metric name": ("final", lambda s: replace(s, metrics={"\x1b": 1})),
    "negative count": ("audit", lambda s: replace(s, k=-1)),
    "unknown method": ("audit", lambda s: replace(s, method="guess")),
    "role as text": ("key-event", lambda s: replace(s, role="run")),
    "unsorted indices": ("status", lambda s: replace(s, key_events=(5, 3))),
    "index twice": ("status", lambda s: replace(s, key_events=(5, 5))),
    "date without time": ("held", lambda s: replace(s, until="2030-01-31")),
    "time with a newline": ("held", lambda s: replace(s, until="2030-01-31T00:00:00Z\n")),
    "short nonce": ("nonce", lambda s: replace(s, nonce="00" * 31)),
}


@pytest.mark.parametrize(("kind", "change"), WRONG_FIELDS.values(), ids=WRONG_FIELDS.keys())
def test_a_wrong_field_is_not_written(
    kind: str, change: Callable[[Any], Any], examples: dict[str, Any]
) -> None:
    with pytest.raises(FormatError) as refusal:
        encode_statement(change(examples[kind]))
    assert str(refusal.value).startswith(kind)


def same_run(status: Any) -> Any:
    return replace(status, runs=tuple(replace(r, run=digest("run")) for r in status.runs))


def exact(audit: Any) -> Any:
    return replace(audit, method="exact", worst=Worst(*[None] * 6))


def passed(audit: Any, **worst: str) -> Any:
    every = Counts(audit.steps, 0, 0, 0)
    return replace(audit, counts=every, worst=replace(audit.worst, **worst))


INCONSISTENT: dict[str, Change] = {
    "step 1 does not follow genesis": ("row", lambda s: replace(s, step=1)),
    "step 2 follows genesis": ("row", lambda s: replace(s, prev=s.run)),
    "one worker key twice": ("attempt", lambda s: replace(s, worker_keys=(public("w0"),) * 2)),
    "fewer keys than processes": ("attempt", lambda s: replace(s, processes=3)),
    "step 0 from another record": ("attempt", lambda s: replace(s, resumed_from=digest("x"))),
    "step 9 from genesis": ("attempt", lambda s: replace(s, step=9, number=2, reason="resume")),
    "first attempt that resumes": ("attempt", lambda s: replace(s, reason="resume")),
    "first attempt at step 9": (
        "attempt",
        lambda s: replace(s, step=9, resumed_from=digest("x")),
    ),
    "second attempt that starts": ("attempt", lambda s: replace(s, number=2)),
    "segment that ends before it starts": ("segment", lambda s: replace(s, last=1)),
    "segment of step 1 does not follow genesis": ("segment", lambda s: replace(s, first=1)),
    "segment of step 2 follows genesis": ("segment", lambda s: replace(s, prev=s.run)),
    "line shorter than the run": ("final", lambda s: replace(s, line=Line(100, digest("line")))),
    "line longer than the run": ("final", lambda s: replace(s, line=Line(102, digest("line")))),
    "unsorted files": ("final", lambda s: replace(s, files=s.files[::-1])),
    "file twice": ("final", lambda s: replace(s, files=s.files[:1] * 2)),
    "file digest in upper case": (
        "final",
        lambda s: replace(s, files=(ExportedFile("a", "A" * 64),)),
    ),
    "intent about something else": ("intent", lambda s: replace(s, about="audit")),
    "holding something else": ("held", lambda s: replace(s, what="gradient")),
    "one source twice": ("audit", lambda s: replace(s, sources=s.sources * 2)),
    "intents without a source": ("audit", lambda s: replace(s, sources=())),
    "chosen steps with a source": ("audit", lambda s: replace(s, sample="chosen")),
    "counts short of steps": ("audit", lambda s: replace(s, counts=Counts(10, 0, 1, 2))),
    "counts past steps": ("audit", lambda s: replace(s, counts=Counts(11, 1, 1, 0))),
    "exact with a statistic": ("audit", lambda s: replace(s, method="exact")),
    "exact that fails the walk": ("audit", lambda s: replace(exact(s), walk="fail")),
    "exact with a drift": ("audit", lambda s: replace(exact(s), drift="pass")),
    "bounded without a": ("audit", lambda s: replace(s, worst=replace(s.worst, a=None))),
    "bounded without b": ("audit", lambda s: replace(s, worst=replace(s.worst, b=None))),
    "all passed above the bound": ("audit", lambda s: passed(s, a2=hex_float(1.5))),
    "all passed by no number": ("audit", lambda s: passed(s, zeros="nan")),
    "drift of one step": (
        "audit",
        lambda s: replace(s, steps=1, counts=Counts(1, 0, 0, 13), drift="pass"),
    ),
    "more right than asked": ("property", lambda s: replace(s, correct=361)),
    "threshold above one": ("property", lambda s: replace(s, threshold=Threshold(11, 10))),
    "runs out of order": ("status", lambda s: replace(s, runs=s.runs[::-1])),
    "run twice": ("status", same_run),
    "two runs from one entry": (
        "status",
        lambda s: replace(s, runs=tuple(replace(r, genesis=1) for r in s.runs)),
    ),
    "key event past the log": ("status", lambda s: replace(s, key_events=(40,))),
    "contract intent past the log": ("status", lambda s: replace(s, contract_intents=(40,))),
    "run entry past the log": ("status", lambda s: replace(s, log=replace(s.log, size=39))),
    "key event that ends its owner": ("key-event", lambda s: replace(s, key=s.owner)),
    "endorsement with a successor": ("key-event", lambda s: replace(s, successor=s.owner)),
    "rotation without a successor": ("key-event", lambda s: replace(s, action="rotate")),
    "key event of a worker": ("key-event", lambda s: replace(s, role=Role.WORKER)),
    "key event of a log": ("key-event", lambda s: replace(s, role=Role.LOG)),
    "conflict of a record with itself": ("conflict", lambda s: replace(s, second=s.first)),
    "conflict in the other order": (
        "conflict",
        lambda s: replace(s, first=s.second, second=s.first),
    ),
}


@pytest.mark.parametrize(("kind", "change"), INCONSISTENT.values(), ids=INCONSISTENT.keys())
def test_fields_that_contradict_each_other_are_refused(
    kind: str, change: Callable[[Any], Any], examples: dict[str, Any]
) -> None:
    with pytest.raises(FormatError) as refusal:
        change(examples[kind])
    assert str(refusal.value).startswith(kind)


AT_THE_LIMIT: dict[str, Change] = {
    "longest text": ("genesis", lambda s: replace(s, trainer="a" * 200)),
    "segment of one step": ("segment", lambda s: replace(s, first=9)),
    "chosen steps": ("audit", lambda s: replace(s, sample="chosen", sources=())),
    "exact that walked": ("audit", lambda s: replace(exact(s), walk="pass")),
    "all passed at the bound": ("audit", lambda s: passed(s, a=hex_float(1.0))),
    "above the bound where a step is unattestable": (
        "audit",
        lambda s: replace(s, worst=replace(s.worst, a2=hex_float(2.0))),
    ),
    "all passed, and walked": (
        "audit",
        lambda s: replace(passed(s), walk="fail", worst=replace(s.worst, walk=hex_float(2.0))),
    ),
    "nothing judged": (
        "audit",
        lambda s: replace(s, worst=Worst(*[None] * 6), counts=Counts(0, 0, 12, 0)),
    ),
    "all right": ("property", lambda s: replace(s, correct=s.total)),
    "threshold of one": ("property", lambda s: replace(s, threshold=Threshold(1, 1))),
    "last entry of the log": ("status", lambda s: replace(s, key_events=(39,))),
    "run without exported files": ("final", lambda s: replace(s, files=())),
    "log that was empty": ("segment", lambda s: replace(s, seen=replace(s.seen, size=0))),
    "segment that saw no log": ("segment", lambda s: replace(s, seen=None)),
}


@pytest.mark.parametrize(("kind", "change"), AT_THE_LIMIT.values(), ids=AT_THE_LIMIT.keys())
def test_a_field_at_its_limit_is_read(
    kind: str, change: Callable[[Any], Any], examples: dict[str, Any]
) -> None:
    statement = change(examples[kind])
    assert decode_statement(encode_statement(statement)) == statement


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../b", "a//b", ".hidden", "a/.b", "", "a/", "state", "a b", "a\\b"],
)
def test_an_exported_file_name_cannot_leave_its_folder(name: str, examples: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        replace(examples["final"], files=(ExportedFile(name, digest("x")),))


def test_every_list_of_a_status_is_held_against_the_log_size(examples: dict[str, Any]) -> None:
    status = examples["status"]
    for name in ("attempts", "finals", "intents", "audits", "properties", "conflicts"):
        late = replace(status.runs[0], **{name: (status.log.size,)})
        with pytest.raises(FormatError):
            replace(status, runs=(late,))
    with pytest.raises(FormatError):
        replace(status, runs=(replace(status.runs[0], genesis=status.log.size),))


def test_names_are_written_in_lower_camel_case() -> None:
    assert json_name("run_key") == "runKey"
    assert json_name("a2_cold") == "a2Cold"
    assert json_name("class_") == "class"
    assert json_name("steps") == "steps"


def test_a_field_without_a_rule_is_a_mistake_at_import() -> None:
    class Forgetful:
        known: Annotated[str, TEXT]
        unknown: str

    with pytest.raises(TypeError, match="Forgetful.unknown"):
        record(Forgetful)
