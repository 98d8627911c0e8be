import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.blake3_pure import blake3, blake3_derive_key, blake3_keyed
from attest.errors import InputError

CONTEXT = "BLAKE3 2019-12-27 16:29:52 test vectors context"


def test_empty_input_gives_the_published_hash():
    published = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert blake3(b"").hex() == published


def test_official_vectors_hold_for_both_implementations(vectors: Path):
    package = pytest.importorskip("blake3").blake3
    published = json.loads((vectors / "blake3.json").read_bytes())
    key = published["key"].encode()
    assert published["context_string"] == CONTEXT
    assert len(published["cases"]) == 35
    for case in published["cases"]:
        data = bytes(i % 251 for i in range(case["input_len"]))
        length = len(case["hash"]) // 2
        expected = [bytes.fromhex(case[mode]) for mode in ("hash", "keyed_hash", "derive_key")]
        assert [
            blake3(data, length),
            blake3_keyed(key, data, length),
            blake3_derive_key(CONTEXT, data, length),
        ] == expected
        assert [
            package(data).digest(length),
            package(data, key=key).digest(length),
            package(data, derive_key_context=CONTEXT).digest(length),
        ] == expected


@settings(max_examples=40, deadline=None)
@given(
    data=st.binary(max_size=200).flatmap(
        lambda seed: st.integers(0, 40).map(lambda times: seed * times)
    ),
    length=st.integers(0, 200),
)
def test_pure_and_package_agree(data: bytes, length: int):
    package = pytest.importorskip("blake3").blake3
    assert blake3(data, length) == package(data).digest(length)
    assert blake3_derive_key("anh v1 tile", data, length) == package(
        data, derive_key_context="anh v1 tile"
    ).digest(length)


def test_key_of_another_length_is_refused():
    with pytest.raises(InputError, match="32 bytes, not 31"):
        blake3_keyed(bytes(31), b"")
