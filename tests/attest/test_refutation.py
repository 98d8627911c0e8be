"""A refutation leads from a run's key to one operator, and no byte of it can be another."""

import base64
import dataclasses
import struct
from typing import Any

import pytest
import run_wording
from run_cast import digest

from attest import canonical
from attest.contract import Contract
from attest.envelope import Envelope, sign
from attest.errors import AttestError, FormatError, RefusedError
from attest.keys import PrivateKey
from attest.merkle import inclusion_path, tree_root
from attest.recording import Entry, Recording, Value
from attest.refutation import (
    Claim,
    Refutation,
    Signed,
    claims,
    program_id,
    two_digits,
    verify_refutation,
)
from attest.signed_step import SignedStep, verify_step
from attest.statements import Row, Step, encode_statement

SIGNATURE, ARTIFACT = b'{"name":"gradient"}', b"ML\xefR program"
RUN_KEY, WORKER, STRANGER = (PrivateKey(bytes([n]) * 32) for n in (1, 2, 3))
INDEX = 3


def contract() -> Contract:
    made = run_wording.contract(9)
    program = program_id(SIGNATURE, ARTIFACT)
    return dataclasses.replace(made, programs=dataclasses.replace(made.programs, gradient=program))


def genesis(made: Contract, key: PrivateKey = RUN_KEY) -> Envelope:
    said = dataclasses.replace(run_wording.genesis(made.id), run_key=key.public.hex())
    return sign(encode_statement(said), [key])


def attempt(run: str, key: PrivateKey = RUN_KEY) -> Envelope:
    said = dataclasses.replace(run_wording.attempt(run, 1), worker_keys=(WORKER.public.hex(),))
    return sign(encode_statement(said), [key])


def row(run: str) -> Row:
    return run_wording.row(run, 1)


def value(x: float) -> Value:
    return Value("float32", (1,), struct.pack("<f", x))


def refutation(**changes: Any) -> Refutation:
    """Return a refutation in order; `changes` of what the run key says about the recording."""
    made = contract()
    first = genesis(made)
    run = first.record_hash().hex()
    second = attempt(run)
    step = Step(attempt=second.record_hash().hex(), row=row(run))
    entries = [
        Entry(0, f"main/{n}", (n, 1), (value(n).digest(), value(2).digest()), (value(9).digest(),))
        for n in range(5)
    ]
    leaves = [entry.leaf() for entry in entries]
    said = Recording(
        backend="cpu",
        count=len(leaves),
        program=program_id(SIGNATURE, ARTIFACT),
        root=tree_root(leaves).hex(),
        row=row(run).hash().hex(),
        run=run,
        step=1,
    )
    said = dataclasses.replace(said, **changes)
    return Refutation(
        signed=Signed(
            contract=made,
            genesis=first,
            attempt=second,
            row=sign(encode_statement(step), [WORKER]),
            recording=sign(said.payload(), [RUN_KEY]),
        ),
        signature=SIGNATURE,
        artifact=ARTIFACT,
        entry=entries[INDEX],
        index=INDEX,
        path=tuple(inclusion_path(INDEX, len(leaves), leaves)),
        inputs=(value(INDEX), value(2)),
        outputs=(value(9),),
        claim=Claim(0, 0, "9.0e+00", "1.0e-06", "1.0e+06"),
    )


def refused(found: Refutation) -> str:
    with pytest.raises(RefusedError) as caught:
        verify_refutation(Refutation.from_bytes(found.to_bytes()))
    return caught.value.check


def with_signed(found: Refutation, **changes: Envelope) -> Refutation:
    return dataclasses.replace(found, signed=dataclasses.replace(found.signed, **changes))


def test_refutation_in_order_is_verified() -> None:
    found = Refutation.from_bytes(refutation().to_bytes())
    accused = verify_refutation(found)
    assert (accused.step, accused.run) == (1, found.signed.genesis.record_hash().hex())
    assert found == refutation()


def test_every_leaf_of_the_file_that_is_changed_is_refused() -> None:
    data = refutation().to_bytes()
    whole = canonical.decode(data, max_bytes=len(data))
    changed = 0
    for place in leaves(whole):
        # The claim is compared with what the operator gives, which nobody has run here.
        if place[0] == "claim":
            continue
        mutated = canonical.decode(data, max_bytes=len(data))
        node = mutated
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = other(node[place[-1]])
        changed += 1
        with pytest.raises(AttestError):
            verify_refutation(Refutation.from_bytes(canonical.encode(mutated)))
    assert changed > 70


def leaves(node: Any, path: tuple[Any, ...] = ()):
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in items:
            yield from leaves(child, (*path, key))
    else:
        yield path


def other(leaf: Any) -> Any:
    if leaf is None:
        return digest("other")
    if isinstance(leaf, int):
        return leaf + 1
    try:
        data = bytearray(base64.b64decode(leaf, validate=True))
    except ValueError:
        data = bytearray()
    if len(data) > 8 and leaf != leaf.lower():
        data[len(data) // 2] ^= 1
        return base64.b64encode(bytes(data)).decode()
    last = "0" if leaf[-1:] != "0" else "1"
    return leaf[:-1] + last


def test_recording_by_another_key_is_refused() -> None:
    found = refutation()
    payload = found.signed.recording.payload
    assert refused(with_signed(found, recording=sign(payload, [STRANGER]))) == "signers"


def test_genesis_and_attempt_by_another_key_are_refused() -> None:
    found = refutation()
    assert refused(with_signed(found, genesis=sign(found.signed.genesis.payload, [STRANGER])))
    assert refused(with_signed(found, attempt=sign(found.signed.attempt.payload, [STRANGER])))


def test_row_by_no_worker_of_the_attempt_is_refused() -> None:
    found = refutation()
    assert refused(with_signed(found, row=sign(found.signed.row.payload, [STRANGER]))) == "row"


def test_attempt_and_row_that_do_not_belong_together_are_refused() -> None:
    found = refutation()
    run = found.signed.genesis.record_hash().hex()
    other = attempt(digest("another run"))
    step = Step(attempt=other.record_hash().hex(), row=row(run))
    signed = sign(encode_statement(step), [WORKER])
    assert refused(with_signed(found, attempt=other, row=signed)) == "attempt"
    own = found.signed.attempt.record_hash().hex()
    for step in (Step(own, row(digest("another run"))), Step(digest("attempt"), row(run))):
        assert refused(with_signed(found, row=sign(encode_statement(step), [WORKER]))) == "row"


def test_recording_of_another_run_row_or_program_is_refused() -> None:
    for change in ({"run": digest("x")}, {"row": digest("x")}, {"step": 2}):
        assert refused(refutation(**change)) == "recording"
    assert refused(refutation(program=digest("evaluate"))) == "recording"
    assert refused(refutation(program=digest("update"))) == "program"


def test_contract_that_genesis_does_not_name_is_refused() -> None:
    found = refutation()
    another = dataclasses.replace(found.signed.contract, seed=2)
    signed = dataclasses.replace(found.signed, contract=another)
    assert refused(dataclasses.replace(found, signed=signed)) == "contract"


def test_other_statement_in_an_envelopes_place_is_refused() -> None:
    found = refutation()
    with pytest.raises(FormatError):
        verify_refutation(with_signed(found, attempt=found.signed.genesis))


def test_entry_beside_the_recording_is_refused() -> None:
    found = refutation()
    assert refused(dataclasses.replace(found, index=5)) == "path"
    assert refused(dataclasses.replace(found, index=INDEX + 1))


def test_operand_or_result_that_is_another_value_is_refused() -> None:
    found = refutation()
    assert refused(dataclasses.replace(found, outputs=(value(8),))) == "output"
    assert refused(dataclasses.replace(found, inputs=(value(INDEX),))) == "input"
    swapped = dataclasses.replace(found, inputs=found.inputs[::-1])
    entry = dataclasses.replace(found.entry, inputs=found.entry.inputs[::-1])
    assert refused(swapped) == "input"
    assert refused(dataclasses.replace(found, entry=dataclasses.replace(entry, name="main/9")))


def test_value_has_one_spelling() -> None:
    good = value(1.0).to_bytes()
    assert Value.from_bytes(good) == value(1.0)
    for bad in (good[:-1], good + b"\0", b" " + good, b'{"dims":[1],"dtype":"f32"}\n1234'):
        with pytest.raises(FormatError):
            Value.from_bytes(bad)
    assert value(1.0).digest() != Value("int32", (1,), value(1.0).data).digest()


def test_recording_is_no_statement_of_another_kind() -> None:
    found = refutation()
    with pytest.raises(FormatError):
        Recording.from_envelope(found.signed.genesis)
    assert Recording.from_envelope(found.signed.recording).count == 5


@pytest.mark.parametrize("number", [0.0, 1.25e-7, 9.95, 3.4e38, float("inf")])
def test_claimed_numbers_are_two_digits_of_the_found_ones(number) -> None:
    assert claims(two_digits(number), number)
    assert claims(two_digits(number), number * (1 + 1e-12))
    assert not claims(two_digits(number * 1.2 + 1e-9), number) or number == float("inf")
    assert not claims("1.0e+00 ", 1.0)


def test_value_of_more_dims_than_any_array_has_is_refused() -> None:
    header = canonical.encode({"dims": [1] * 65, "dtype": "float32"})
    with pytest.raises(FormatError, match="dims"):
        Value.from_bytes(header + b"\n" + bytes(4))


def test_row_of_another_run_is_refused_although_a_worker_of_this_one_signed_it() -> None:
    made = contract()
    start = genesis(made)
    begun = attempt(start.record_hash().hex())
    step = Step(attempt=begun.record_hash().hex(), row=row(digest("another")))
    signed = SignedStep(made, start, begun, sign(encode_statement(step), [WORKER]))
    with pytest.raises(RefusedError, match="row: belongs to another run"):
        verify_step(signed)
