import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.canonical import hex_float
from attest.envelope import row_hash
from attest.errors import FormatError
from attest.statements import Row, Scalars, Step, decode_statement, encode_statement


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


HEX = st.sampled_from([digest(str(i)) for i in range(5)])
FLOATS = st.floats(width=32).map(hex_float)
ROWS = st.builds(
    Row,
    run=st.just(digest("run")),
    step=st.integers(2, 2**53 - 1),
    prev=HEX,
    gradient_root=HEX,
    state_root=HEX | st.none(),
    batch_root=HEX,
    scalars=st.builds(Scalars, FLOATS, st.integers(0, 1), FLOATS),
    loss=FLOATS,
    bound=st.none() | st.floats(0, 1e30).map(abs).map(hex_float),
)


@pytest.fixture
def row(examples: dict) -> Row:
    return examples["row"]


def test_known_row(row: Row) -> None:
    names = ("batch 2", "gradient 2", "row 1", "run", "state 2")
    assert row.to_bytes() == (
        b'{"batchRoot":"%s","bound":null,"gradientRoot":"%s","loss":"0x1.2000000000000p+1",'
        b'"prev":"%s","run":"%s","scalars":{"finite":1,"globalNorm":"0x1.8000000000000p+0",'
        b'"weight":"0x1.0000000000000p+5"},"stateRoot":"%s","step":2}'
        % tuple(digest(name).encode() for name in names)
    )
    assert row.hash() == row_hash(row.to_bytes())
    assert row.hash().hex() == "55733bf4a9a76e6972c2d58b8ca2247e5f75f3308098047632221d4a43b25b68"


def test_a_row_is_the_same_in_every_attempt(row: Row) -> None:
    rows = set()
    for attempt in ("attempt 1", "attempt 2"):
        statement = decode_statement(encode_statement(Step(digest(attempt), row)))
        assert isinstance(statement, Step)
        rows.add(statement.row.to_bytes())
    assert rows == {row.to_bytes()}


@given(ROWS, HEX)
def test_any_honest_row_reads_back_as_written(row: Row, attempt: str) -> None:
    assert Row.from_bytes(row.to_bytes()) == row
    assert len(row.to_bytes()) < 700
    statement = Step(attempt, row)
    assert decode_statement(encode_statement(statement)) == statement


@given(ROWS, ROWS)
def test_rows_differ_exactly_when_their_hashes_do(a: Row, b: Row) -> None:
    assert (a == b) == (a.hash() == b.hash())


def test_the_first_row_follows_genesis(row: Row) -> None:
    first = dataclasses.replace(row, step=1, prev=row.run)
    assert Row.from_bytes(first.to_bytes()) == first


@pytest.mark.parametrize("loss", ["nan", "inf", "-inf", hex_float(-0.0)])
def test_a_non_finite_step_can_be_committed(row: Row, loss: str) -> None:
    bad = dataclasses.replace(row, loss=loss, scalars=Scalars("nan", 0, hex_float(32.0)))
    assert Row.from_bytes(bad.to_bytes()) == bad


SCALARS = Scalars(hex_float(1.5), 1, hex_float(32.0))
BAD_ROWS = {
    "negative bound": {"bound": hex_float(-1.0)},
    "minus zero bound": {"bound": hex_float(-0.0)},
    "nan bound": {"bound": "nan"},
    "infinite bound": {"bound": "inf"},
    "decimal loss": {"loss": "0.5"},
    "short hexadecimal loss": {"loss": "0x1p-1"},
    "loss as a number": {"loss": 0.5},
    "true for finite": {"scalars": dataclasses.replace(SCALARS, finite=True)},
    "finite of 2": {"scalars": dataclasses.replace(SCALARS, finite=2)},
    "step of 2^53": {"step": 2**53},
    "missing batch": {"batch_root": None},
}


@pytest.mark.parametrize("fields", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_neither_written_nor_signed(row: Row, fields: dict) -> None:
    bad = dataclasses.replace(row, **fields)
    for write in (bad.to_bytes, bad.hash, lambda: encode_statement(Step(digest("attempt"), bad))):
        with pytest.raises(FormatError):
            write()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"x" * 3000])
def test_other_bytes_are_no_row(data: bytes) -> None:
    with pytest.raises(FormatError):
        Row.from_bytes(data)
