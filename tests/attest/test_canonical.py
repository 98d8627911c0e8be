import ctypes
import json
import math
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attest.canonical import MAX_INT, decode, encode, hex_float, parse_hex_float
from attest.errors import FormatError

ASCII = st.text(st.characters(max_codepoint=127), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INT, MAX_INT) | ASCII,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ASCII, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_every_value_reads_back_as_written(value) -> None:
    data = encode(value)
    assert decode(data, max_bytes=len(data)) == value
    assert data.isascii()


@given(VALUES)
def test_bytes_equal_those_of_another_rfc8785_encoder(value) -> None:
    rfc8785 = pytest.importorskip("rfc8785")
    assert encode(value) == rfc8785.dumps(value)


def test_a_tuple_is_written_as_a_list() -> None:
    assert encode((1, (2, "a"))) == b'[1,[2,"a"]]'


REFUSED = {
    "empty": (b"", "not json"),
    "space": (b'{"a": 1}', "not canonical"),
    "trailing newline": (b'{"a":1}\n', "not canonical"),
    "leading space": (b" 1", "not canonical"),
    "two values": (b"1 2", "not json"),
    "unsorted keys": (b'{"b":1,"a":2}', "not canonical"),
    "duplicate key": (b'{"a":1,"a":1}', "duplicate key"),
    "duplicate key in another spelling": (b'{"a":1,"\\u0061":1}', "duplicate key"),
    "needless escape": (b'"\\u0061"', "not canonical"),
    "escaped slash": (b'"\\/"', "not canonical"),
    "upper-case escape": (b'"\\u001F"', "not canonical"),
    "long escape of a newline": (b'"\\u000a"', "not canonical"),
    "raw control character": (b'"\n"', "not json"),
    "escaped non-ASCII": (b'"\\u00e9"', "not canonical"),
    "raw non-ASCII": ('"é"'.encode(), "not ascii"),
    "lone surrogate": (b'"\\ud800"', "not canonical"),
    "surrogate pair": (b'"\\ud83d\\ude00"', "not canonical"),
    "not UTF-8": (b'"\xff"', "not ascii"),
    "byte order mark": (b"\xef\xbb\xbf1", "not ascii"),
    "float": (b"1.5", "float"),
    "integral float": (b"1.0", "float"),
    "exponent": (b"1e3", "float"),
    "overflowing exponent": (b"1e999", "float"),
    "NaN": (b"NaN", "float"),
    "Infinity": (b"-Infinity", "float"),
    "minus zero": (b"-0", "not canonical"),
    "leading zero": (b"01", "not json"),
    "plus": (b"+1", "not json"),
    "2^53": (b"9007199254740992", "integer range"),
    "-2^53": (b"-9007199254740992", "integer range"),
    "long integer": (b"9" * 5000, "integer range"),
    "trailing comma": (b"[1,]", "not json"),
    "comment": (b"/**/1", "not json"),
    "single quotes": (b"{'a':1}", "not json"),
    "nul": (b'{"a":1}\x00', "not json"),
    "unclosed": (b'{"a":[1', "not json"),
    "unclosed string": (b'"abc\\', "not json"),
    "undefined escape": (b'"\\x41"', "not json"),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_other_spellings_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(FormatError) as refusal:
        decode(data, max_bytes=10_000)
    assert refusal.value.code == code
    assert len(str(refusal.value)) < 200


UNWRITABLE = {
    "float": 1.0,
    "nan": math.nan,
    "float inside": {"a": [1, 2.5]},
    "bytes": b"a",
    "2^53": MAX_INT + 1,
    "-2^53": -MAX_INT - 1,
    "non-ASCII": "é",
    "non-ASCII key": {"é": 1},
    "surrogate": "\ud800",
    "integer key": {1: 1},
    "set": {1},
    "object": object(),
}


@pytest.mark.parametrize("value", UNWRITABLE.values(), ids=UNWRITABLE.keys())
def test_values_without_a_canonical_form_are_not_written(value) -> None:
    with pytest.raises(FormatError):
        encode(value)


def test_subclasses_are_not_written() -> None:
    class Text(str):
        pass

    class Number(int):
        pass

    for value in (Text("a"), Number(1), {Text("a"): 1}):
        with pytest.raises(FormatError):
            encode(value)


def test_a_value_that_contains_itself_is_not_written() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(FormatError) as refusal:
        encode(loop)  # pyright: ignore[reportArgumentType]
    assert refusal.value.code == "too deep"


@given(st.binary(max_size=40) | st.text('[]{}",:0123456789-.eE\\utrfn al', max_size=40))
@example(b'{"a":1}')
def test_arbitrary_bytes_are_canonical_or_refused_by_name(data) -> None:
    data = data.encode() if isinstance(data, str) else data
    try:
        value = decode(data, max_bytes=40)
    except FormatError:
        return
    assert encode(value) == data


def test_every_changed_byte_is_refused_or_is_another_canonical_value() -> None:
    value = {"a": [1, -20, "x\ny\\"], "b": {"c": None, "d": True}, "e": ""}
    data = encode(value)
    for i in range(len(data)):
        for byte in range(256):
            changed = data[:i] + bytes([byte]) + data[i + 1 :]
            try:
                other = decode(changed, max_bytes=100)
            except FormatError:
                continue
            assert encode(other) == changed
            assert (other == value) == (changed == data)


def test_size_is_checked_before_anything_is_parsed() -> None:
    with pytest.raises(FormatError) as refusal:
        decode(b"\xff" * 11, max_bytes=10)
    assert refusal.value.code == "too large"
    assert decode(b'"12345678"', max_bytes=10) == "12345678"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("levels", [17, 100_000])
def test_depth_is_checked_before_anything_is_parsed(opening: bytes, levels: int) -> None:
    with pytest.raises(FormatError) as refusal:
        decode(opening * levels, max_bytes=10**6)
    assert refusal.value.code == "too deep"


def test_depth_counts_containers_and_not_brackets_in_text() -> None:
    nested = b"[" * 16 + b"]" * 16
    assert encode(decode(nested, max_bytes=100)) == nested
    assert decode(b'"' + b"[" * 50 + b'"', max_bytes=100) == "[" * 50
    assert decode(b'["' + b'\\"[' * 50 + b'",[]]', max_bytes=1000, max_depth=2)
    with pytest.raises(FormatError):
        decode(b"[[]]", max_bytes=100, max_depth=1)
    wide = b"[" + b",".join([b"[]"] * 100) + b"]"
    assert decode(wide, max_bytes=1000, max_depth=2) == [[]] * 100


def test_hostile_quotes_take_linear_time() -> None:
    started = time.perf_counter()
    for data in (b'"' + b'\\"' * 500_000, b'"' * 1_000_001, b"[" * 20 + b'"\\' * 500_000):
        with pytest.raises(FormatError):
            decode(data, max_bytes=2_000_000)
    assert time.perf_counter() - started < 5


def test_the_widest_integers_pass() -> None:
    for number in (MAX_INT, -MAX_INT, 0):
        assert decode(encode(number), max_bytes=20) == number


@given(st.floats())
@example(5e-324)
@example(-0.0)
@example(math.nan)
@example(math.inf)
def test_a_hex_float_reads_back_bit_for_bit(x: float) -> None:
    text = hex_float(x)
    again = parse_hex_float(text)
    assert hex_float(again) == text
    assert again == x or (math.isnan(x) and math.isnan(again))
    assert math.copysign(1, again) == math.copysign(1, x) or math.isnan(x)
    assert decode(encode(text), max_bytes=40) == text


@given(st.floats())
def test_a_hex_float_is_what_c99_reads(x: float) -> None:
    strtod = ctypes.CDLL(None).strtod
    strtod.restype = ctypes.c_double
    read = strtod(hex_float(x).encode(), None)
    assert read == x or math.isnan(x)


def test_known_hex_floats() -> None:
    assert hex_float(2.0**-24) == "0x1.0000000000000p-24"
    assert hex_float(0.1) == "0x1.999999999999ap-4"
    assert hex_float(math.nan) == "nan"
    assert hex_float(-math.inf) == "-inf"


OTHER_FLOATS = """
0x1p-24 0X1.0000000000000p+0 0x1.0000000000000P+0 0x1.00000000000000p+0 0x1.000000000000p+0 1.0 1
-nan +nan NaN infinity +inf Inf -Inf 0x2.0000000000000p+0 +0x1.0000000000000p+0 0x1.8p+1024 0x
0x1.0000000000000p+00 0x0.8000000000000p+1 0x1.000000000000Ap+0 0x0p+0 0x0.0p+1
"""


@pytest.mark.parametrize(
    "text",
    [
        *OTHER_FLOATS.split(),
        "",
        " 0x1.0000000000000p+0",
        "0x1.0000000000000p+0\n",
        "0x1.0000000000000p+0\x00",
        "é",
    ],
)
def test_other_spellings_of_a_float_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_hex_float(text)


def test_a_float_given_as_a_number_is_refused() -> None:
    for value in (1.0, None, 1):
        with pytest.raises(FormatError):
            parse_hex_float(value)  # pyright: ignore[reportArgumentType]


def test_json_of_the_standard_library_alone_would_pass_what_is_refused_here() -> None:
    # Why decode() has its own hooks: re-encode-and-compare is not enough in Python.
    for data in (b"NaN", b"1.5", b"9007199254740993"):
        assert json.dumps(json.loads(data)).encode() == data
        with pytest.raises(FormatError):
            decode(data, max_bytes=100)
