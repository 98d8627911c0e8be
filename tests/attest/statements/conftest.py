"""One valid example of every statement, of a row and of a contract."""

import hashlib
from typing import Any

import pytest

from attest import canonical
from attest.canonical import hex_float
from attest.contract import Contract
from attest.envelope import sign
from attest.keys import PrivateKey, Role
from attest.statements import (
    Attempt,
    Audit,
    Conflict,
    ContractStatement,
    Counts,
    ExportedFile,
    Final,
    Genesis,
    Held,
    Intent,
    KeyEvent,
    Line,
    LogHead,
    Mesh,
    Nonce,
    Property,
    Row,
    RunEntries,
    Scalars,
    Segment,
    Source,
    Statement,
    Status,
    Step,
    Threshold,
    Worst,
)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def public(name: str) -> str:
    return PrivateKey(hashlib.sha256(name.encode()).digest()).public.hex()


RUN = digest("run")
CONTRACT_OBJECT = {
    "version": 1,
    "steps": 100,
    "batchSize": 32,
    "seed": 7,
    "seedRule": "fixed",
    "programs": {
        name: digest(name) for name in ("init", "gradient", "scalars", "update", "evaluate")
    },
    "constants": digest("constants"),
    "rules": digest("rules"),
    "config": digest("config"),
    "data": {
        "root": digest("data"),
        "examples": 1437,
        "order": "feistel-sha256/v1",
        "holdout": {"root": digest("holdout"), "examples": 360},
    },
    "init": {"kind": "program"},
    "optimizer": {"kind": "elementwise", "name": "adamw"},
    "numerics": {
        "class": "f32",
        "unitRoundoff": hex_float(2.0**-24),
        "roundoff": {
            kind: hex_float(2.0**-24)
            for kind in ("dot", "reduce", "elementwise", "storage", "update")
        },
        "reduction": "float32-any-order",
        "dotAlgorithm": "F32_F32_F32",
        "c": hex_float(4.0),
        "cRow": hex_float(10.0),
        "phi": hex_float(1.0),
        "phiSum": hex_float(4.0),
        "cap": hex_float(1e-4),
        "a2": hex_float(1e-3),
        "a2Cold": hex_float(0.1),
        "a2Excess": "refuted",
        "a2Exempt": ["sgd"],
        "localZeros": "refuted",
        "nullGradients": [],
    },
    "properties": [
        {
            "name": "accuracy",
            "program": digest("evaluate"),
            "dataRoot": digest("holdout"),
            "numerator": 9,
            "denominator": 10,
            "margin": 2,
        }
    ],
    "retention": {"window": "90 days", "holders": ["a", "b"], "price": "none", "deadline": "1 day"},
}
CONTRACT = Contract.from_bytes(canonical.encode(CONTRACT_OBJECT))
FACTS = {"jax": "0.10.2", "XLA_FLAGS": ""}
SCALARS = Scalars(hex_float(1.5), 1, hex_float(32.0))
ROW = Row(
    RUN,
    2,
    digest("row 1"),
    digest("gradient 2"),
    digest("state 2"),
    digest("batch 2"),
    SCALARS,
    hex_float(2.25),
    None,
)
HEAD = LogHead("log.example/a", 40, digest("tree"))
A = sign(b'{"a":1}', [PrivateKey(bytes(32))])
B = sign(b'{"a":2}', [PrivateKey(bytes(32))])
FIRST, SECOND = sorted((A, B), key=lambda e: e.record_hash())
FINAL = Final(
    digest("state 100"),
    (ExportedFile("config.json", digest("c")), ExportedFile("model.safetensors", digest("m"))),
    RUN,
    Line(101, digest("line")),
    100,
    1,
    {"loss": hex_float(0.5), "examples": 3200},
)
AUDIT = Audit(
    digest("final"),
    RUN,
    "auditor.example",
    "intents",
    (Source(digest("intent"), digest("key"), digest("nonce")),),
    10,
    12,
    "bounded",
    digest("results"),
    Counts(11, 0, 1, 2),
    Worst(hex_float(0.5), hex_float(0.25), hex_float(0.0), None, hex_float(0.0), hex_float(1.0)),
    "pass",
    "pass",
    "not checked",
    "pass",
    "no null known",
    digest("own"),
    FACTS,
)
STATUS = Status(
    CONTRACT.id,
    "monitor.example",
    HEAD,
    (
        RunEntries(RUN, 1, (2, 30), (39,), (0,), (), (), ()),
        RunEntries(digest("run 2"), 5, (6,), (), (), (), (), (7,)),
    ),
    (0,),
    (38,),
)
STATEMENTS: dict[str, Statement] = {
    "contract": ContractStatement("author.example", CONTRACT),
    "genesis": Genesis(
        digest("state 0"),
        CONTRACT.id,
        digest("plan"),
        public("run"),
        "trainer.example",
        {"backend": "cpu", "threads": 2},
        FACTS,
        "every 1",
        "blake3",
        "exact",
        "fixed",
    ),
    "attempt": Attempt(
        RUN, RUN, 1, 0, (public("w0"), public("w1")), Mesh(2, 1, 1), 2, FACTS, "start"
    ),
    "step": Step(digest("attempt"), ROW),
    "segment": Segment(
        state_root=digest("state 9"),
        run=RUN,
        attempt=digest("attempt"),
        first=2,
        last=9,
        prev=digest("row 1"),
        last_row=digest("row 9"),
        rows_root=digest("rows"),
        seen=HEAD,
    ),
    "final": FINAL,
    "intent": Intent("run", RUN, "auditor.example", digest("commitment")),
    "nonce": Nonce(digest("intent"), digest("nonce")),
    "audit": AUDIT,
    "property": Property(
        digest("state 100"),
        RUN,
        digest("final"),
        "auditor.example",
        "accuracy",
        digest("evaluate"),
        digest("holdout"),
        340,
        360,
        Threshold(9, 10),
        2,
        "met",
    ),
    "status": STATUS,
    "held": Held("state", digest("state 9"), "holder.example", "2030-01-31T00:00:00Z"),
    "conflict": Conflict(FIRST, SECOND),
    "key-event": KeyEvent(
        "endorse", public("run"), Role.RUN, "log.example/a", 3, public("owner"), None
    ),
}


@pytest.fixture(scope="session")
def contract_object() -> dict:
    return CONTRACT_OBJECT


@pytest.fixture(scope="session")
def examples() -> dict[str, Any]:
    return STATEMENTS | {"row": ROW}
