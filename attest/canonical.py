"""Strict canonical JSON: one value, one byte string.

The subset of RFC 8785 (JCS) without floats and outside ASCII: sorted keys, no white space, integers
within +-(2^53 - 1), no duplicate keys. On it `json.dumps` and RFC 8785 write the same bytes.
"""

import json
import re
from typing import TypeAlias, cast

from attest.errors import FormatError

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | tuple[JSON, ...] | str | int | bool | None"

MAX_INT = 2**53 - 1
MAX_DEPTH = 16
# encode() walks by recursion; nothing of ours nests deeper than a contract in a statement (6).
_ENCODE_DEPTH = 64
# A whole JSON string, closed or running to the end of the data. Possessive: linear on any input.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def encode(value: JSON) -> bytes:
    """Write a JSON value as canonical bytes.

    Exact types only: dict with str keys, list, tuple (as list), str, int, bool, None.

    Raises:
        FormatError: for a float, a non-ASCII string, an integer past 2^53 - 1, another type.
    """
    _check(value, "value", _ENCODE_DEPTH)
    return _dump(value).encode("ascii")


def decode(data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> JSON:
    """Read canonical bytes; every other spelling of the same value is refused.

    Size and depth are checked before the parser sees a byte; `encode(decode(x)) == x` holds.

    Raises:
        FormatError: always this one, whatever is wrong with the bytes.
    """
    if len(data) > max_bytes:
        raise FormatError(f"JSON is {len(data)} bytes, more than {max_bytes}", code="too large")
    if not data.isascii():
        raise FormatError("JSON holds a byte outside ASCII", code="not ascii")
    _check_depth(data, max_depth)
    text = data.decode("ascii")
    try:
        value = cast(JSON, _DECODER.decode(text))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}", code="not json") from None
    # A non-ASCII character can only have come from an escape, and is written back without one.
    if _dump(value) != text:
        raise FormatError(
            "JSON is not canonical (sorted keys, no spaces, no needless escapes)",
            code="not canonical",
        )
    return value


def hex_float(x: float) -> str:
    """Write a float as a C99 hexadecimal string, as `float.hex()`; also nan, inf, -inf."""
    return float.hex(float(x))


def parse_hex_float(text: str) -> float:
    """Read what `hex_float` wrote; another spelling of the same number is refused.

    Raises:
        FormatError: if the text is not canonical.
    """
    try:
        value = float.fromhex(text)
    except (ValueError, OverflowError, TypeError):
        raise FormatError(
            f"not a hexadecimal float: {str(text)[:40]!r}", code="hex float"
        ) from None
    if value.hex() != text:
        raise FormatError(
            f"hexadecimal float {text[:40]!r} is written {value.hex()!r}", code="hex float"
        )
    return value


def _check(value: object, where: str, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if not cast(str, value).isascii():
            raise FormatError(f"{where}: a string outside ASCII", code="not ascii")
    elif kind is int:
        if not -MAX_INT <= cast(int, value) <= MAX_INT:
            raise FormatError(f"{where}: an integer past 2^53 - 1", code="integer range")
    elif kind is dict or kind is list or kind is tuple:
        if depth == 0:
            raise FormatError(f"{where}: nested deeper than {_ENCODE_DEPTH}", code="too deep")
        if kind is dict:
            for key, item in cast("dict[object, object]", value).items():
                if type(key) is not str or not key.isascii():
                    raise FormatError(f"{where}: key {key!r} is not ASCII text", code="key")
                _check(item, key, depth - 1)
        else:
            for item in cast("list[object]", value):
                _check(item, where, depth - 1)
    elif value is not None and kind is not bool:
        raise FormatError(f"{where}: {kind.__name__} has no canonical JSON form", code="type")


def _check_depth(data: bytes, max_depth: int) -> None:
    # Fewer brackets than levels allowed: the common case, answered without a scan.
    if data.count(b"{") + data.count(b"[") <= max_depth:
        return
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", data)):
        depth += 1 if bracket in b"{[" else -1
        if depth > max_depth:
            raise FormatError(f"JSON is nested deeper than {max_depth}", code="too deep")


def _integer(text: str) -> int:
    # 2^53 - 1 has 16 digits; longer text never reaches the (quadratic) conversion.
    if len(text) > 17 or not -MAX_INT <= (value := int(text)) <= MAX_INT:
        raise FormatError("JSON holds an integer past 2^53 - 1", code="integer range")
    return value


def _no_float(text: str) -> float:
    raise FormatError(
        f"JSON holds the float {text[:40]}; write it as a hexadecimal string", code="float"
    )


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise FormatError("JSON object names a key twice", code="duplicate key")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_float=_no_float,
    parse_int=_integer,
    parse_constant=_no_float,
)
_dump = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
).encode
