import dataclasses
import hashlib
import json
from typing import Any

import pytest

from attest import canonical
from attest.errors import FormatError
from attest.statements import (
    Held,
    Intent,
    Statement,
    Step,
    decode_statement,
    encode_statement,
)

KINDS = [
    "contract",
    "genesis",
    "attempt",
    "step",
    "segment",
    "final",
    "intent",
    "nonce",
    "audit",
    "property",
    "status",
    "held",
    "conflict",
    "key-event",
]
every_kind = pytest.mark.parametrize("kind", KINDS)
Examples = dict[str, Any]


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def parsed(statement: Statement) -> dict:
    return json.loads(encode_statement(statement))


def decode(value: object) -> Statement:
    return decode_statement(canonical.encode(value))


@pytest.mark.parametrize("subject", [None, 1, "x", [], {}, [None], [1], ["x"], [[]], [{}]])
def test_a_malformed_subject_is_refused(subject: object, examples: Examples) -> None:
    with pytest.raises(FormatError):
        decode(parsed(examples["step"]) | {"subject": subject})


@every_kind
def test_another_subject_than_the_fields_give_is_refused(kind: str, examples: Examples) -> None:
    value = parsed(examples[kind])
    subjects = value["subject"]
    ((name, text),) = subjects[0]["digest"].items()
    for changed in (
        [],
        [*subjects, subjects[0]],
        [*subjects, {"name": "zz/../etc", "digest": {"sha256": digest("x")}}],
        [{"name": "surprise", "digest": {name: text}}, *subjects[1:]],
        [{"name": subjects[0]["name"], "digest": {"md5": text}}, *subjects[1:]],
        [{"name": subjects[0]["name"], "digest": {}}, *subjects[1:]],
        [{"name": subjects[0]["name"], "digest": {name: text, "sha512": text}}, *subjects[1:]],
        [{"name": subjects[0]["name"], "digest": {name: text.upper()}}, *subjects[1:]],
        [
            {
                "name": subjects[0]["name"],
                "digest": {"anhStateV1" if name == "sha256" else "sha256": text},
            },
            *subjects[1:],
        ],
    ):
        with pytest.raises(FormatError):
            decode(value | {"subject": changed})


@pytest.mark.parametrize("kind", ["contract", "step", "conflict", "key-event"])
def test_a_derived_subject_is_recomputed(kind: str, examples: Examples) -> None:
    value = parsed(examples[kind])
    ((name, _),) = value["subject"][0]["digest"].items()
    value["subject"][0]["digest"] = {name: digest("another")}
    with pytest.raises(FormatError):
        decode(value)


def test_only_what_is_a_plain_sha256_is_called_so(examples: Examples) -> None:
    digests = {kind: [s.algorithm for s in examples[kind].subjects()] for kind in KINDS}
    assert digests == {
        "contract": ["sha256"],
        "genesis": ["anhStateV1"],
        "attempt": ["anhRecordV1"],
        "step": ["anhStateV1"],
        "segment": ["anhStateV1"],
        "final": ["anhStateV1", "sha256", "sha256"],
        "intent": ["anhRecordV1"],
        "nonce": ["anhRecordV1"],
        "audit": ["anhRecordV1"],
        "property": ["anhStateV1"],
        "status": ["sha256"],
        "held": ["anhStateV1"],
        "conflict": ["anhRecordV1", "anhRecordV1"],
        "key-event": ["sha256"],
    }


def test_a_skipped_state_leaves_the_gradient_as_subject(examples: Examples) -> None:
    row = dataclasses.replace(examples["row"], state_root=None)
    statement = Step(digest("attempt"), row)
    payload = encode_statement(statement)
    assert decode_statement(payload) == statement
    assert json.loads(payload)["subject"] == [
        {"name": "gradient", "digest": {"anhGradientV1": row.gradient_root}}
    ]


def test_an_intent_may_be_about_a_contract_and_a_holder_may_hold_data(examples: Examples) -> None:
    intent = Intent(
        "contract", examples["contract"].contract.id, "auditor.example", digest("commitment")
    )
    held = Held("data", digest("data"), "holder.example", "2030-01-31T00:00:00Z")
    assert [intent.subjects()[0].algorithm, held.subjects()[0].algorithm] == ["sha256", "anhDataV1"]
    for statement in (intent, held):
        assert decode_statement(encode_statement(statement)) == statement
