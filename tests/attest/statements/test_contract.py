import copy
import dataclasses
import hashlib
from collections.abc import Callable

import pytest

from attest import canonical
from attest.canonical import hex_float
from attest.contract import Contract
from attest.errors import FormatError, UnsupportedError
from attest.statements import ContractStatement, encode_statement


def test_known_contract_id(contract_object: dict) -> None:
    contract = Contract.from_bytes(canonical.encode(contract_object))
    assert contract.to_bytes() == canonical.encode(contract_object)
    assert contract.id == hashlib.sha256(contract.to_bytes()).hexdigest()
    assert contract.id == "2afae004f231731beb57b889ea0506897f395bece67fcaa1bb111400fe7491e4"


def test_a_contract_without_hold_out_or_properties_is_one(contract_object: dict) -> None:
    value = copy.deepcopy(contract_object)
    value["data"]["holdout"] = None
    value["properties"] = []
    contract = Contract.from_bytes(canonical.encode(value))
    assert contract.data.holdout is None
    assert contract.to_bytes() == canonical.encode(value)


def test_a_property_may_promise_everything(contract_object: dict) -> None:
    value = copy.deepcopy(contract_object)
    value["properties"][0]["numerator"] = value["properties"][0]["denominator"]
    assert Contract.from_bytes(canonical.encode(value)).properties[0].numerator == 10


def numerics(**fields) -> Callable[[dict], dict]:
    return lambda contract: {"numerics": contract["numerics"] | fields}


def properties(*changes: dict) -> Callable[[dict], dict]:
    return lambda contract: {"properties": [contract["properties"][0] | c for c in changes]}


BAD_CONTRACTS: dict[str, Callable[[dict], dict]] = {
    "another version": lambda _: {"version": 2},
    "no steps": lambda _: {"steps": 0},
    "no batch": lambda _: {"batchSize": 0},
    "negative seed": lambda _: {"seed": -1},
    "seed that is true": lambda _: {"seed": True},
    "seed as text": lambda _: {"seed": "7"},
    "unknown seed rule": lambda _: {"seedRule": "lucky"},
    "unknown start": lambda _: {"init": {"kind": "stolen"}},
    "unknown optimizer kind": lambda _: {"optimizer": {"kind": "magic", "name": "x"}},
    "unknown order": lambda c: {"data": c["data"] | {"order": "shuffle"}},
    "unsorted holders": lambda c: {"retention": c["retention"] | {"holders": ["b", "a"]}},
    "vacuous tolerance": numerics(c="inf"),
    "tolerance that is no number": numerics(c="nan"),
    "tolerance of zero": numerics(c=hex_float(0.0)),
    "negative tolerance": numerics(cap=hex_float(-1.0)),
    "tolerance as a number": numerics(c=4),
    "effect before step 10 of zero": numerics(a2Cold=hex_float(0.0)),
    "sums in bfloat16": numerics(reduction="bfloat16"),
    "excess that passes": numerics(a2Excess="ignored"),
    "zeros that pass somehow": numerics(localZeros="sometimes"),
    "null gradients named twice": numerics(nullGradients=["a", "a"]),
    "unit roundoff finer than an operator's": numerics(
        roundoff={
            kind: hex_float(2.0**-8)
            for kind in ("dot", "reduce", "elementwise", "storage", "update")
        }
    ),
    "operator without a roundoff": lambda c: numerics(
        roundoff={k: v for k, v in c["numerics"]["roundoff"].items() if k != "storage"}
    )(c),
    "threshold above one": properties({"numerator": 11}),
    "threshold by zero": properties({"denominator": 0}),
    "property twice": properties({}, {}),
}


@pytest.mark.parametrize("change", BAD_CONTRACTS.values(), ids=BAD_CONTRACTS.keys())
def test_a_bad_contract_is_refused(change: Callable, contract_object: dict) -> None:
    data = canonical.encode(contract_object | change(contract_object))
    with pytest.raises(FormatError) as refusal:
        Contract.from_bytes(data)
    assert str(refusal.value).startswith("contract")
    assert refusal.value.exit_code == 1


def test_a_seed_beacon_cannot_be_judged_yet(contract_object: dict) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        Contract.from_bytes(canonical.encode(contract_object | {"seedRule": "beacon"}))
    assert refusal.value.exit_code == 2


def test_an_invalid_contract_is_not_written(contract_object: dict) -> None:
    contract = Contract.from_bytes(canonical.encode(contract_object))
    with pytest.raises(FormatError):
        dataclasses.replace(contract, steps=0).to_bytes()
    with pytest.raises(FormatError):
        encode_statement(ContractStatement("a", dataclasses.replace(contract, config="x")))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"1", b'"x"', b'{"version":1}', b"[" * 100])
def test_other_bytes_are_no_contract(data: bytes) -> None:
    with pytest.raises(FormatError):
        Contract.from_bytes(data)
