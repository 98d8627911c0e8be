"""Signed notes: the specification's examples, one spelling only, no line taken on trust."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.errors import AttestError, FormatError, RefusedError
from attest.keys import ALG_ED25519, PrivateKey, VerifierKey
from attest.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    KeyName,
    Note,
    NoteSignature,
    UnknownLines,
    decode_base64,
    sign_note,
    text_check,
    verify_note,
)

# C2SP signed-note v1.0.0.
SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n"
    "\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mF"
    "XmRKuwHjG1Yu72IneyaQM=\n"
).encode()
SPEC_POEM = (
    "Ognuno sta solo sul cuor della terra\n"
    "trafitto da un raggio di sole:\n"
    "\n"
    "ed è subito sera.\n"
    "\n"
    "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrM"
    "ouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
).encode()

KEY = PrivateKey(b"\x01" * 32)
OTHER = PrivateKey(b"\x02" * 32)


def verify(data: bytes, *keys: VerifierKey, unknown: UnknownLines = UnknownLines.IGNORE) -> int:
    note = Note.from_bytes(data)
    checks = {KeyName.of(key): text_check(note.text, key) for key in keys}
    return len(verify_note(note, checks, unknown))


def key_of(private: PrivateKey, name: str) -> VerifierKey:
    return VerifierKey(name, ALG_ED25519, private.public)


def test_example_of_the_specification_verifies_and_is_written_back_as_it_was():
    key = VerifierKey.from_text(SPEC_KEY)
    assert verify(SPEC_NOTE, key, unknown=UnknownLines.REFUSE) == 1
    assert Note.from_bytes(SPEC_NOTE).to_bytes() == SPEC_NOTE


def test_text_may_hold_empty_lines_and_any_utf8():
    note = Note.from_bytes(SPEC_POEM)
    assert note.text.endswith("sole:\n\ned è subito sera.\n")
    assert note.to_bytes() == SPEC_POEM


def test_signed_note_verifies_for_its_key_and_no_other():
    data = sign_note("text\n", "log.example", KEY).to_bytes()
    assert verify(data, key_of(KEY, "log.example")) == 1
    for stranger in (key_of(OTHER, "log.example"), key_of(KEY, "log.example/2")):
        with pytest.raises(RefusedError):
            verify(data, stranger)


def test_signature_for_another_text_is_refused_though_name_and_hash_are_right():
    first = sign_note("one\n", "log.example", KEY)
    moved = Note("two\n", first.signatures)
    with pytest.raises(RefusedError, match=r"log\.example"):
        verify(moved.to_bytes(), key_of(KEY, "log.example"))


def test_bad_line_of_a_known_key_spoils_the_note_beside_a_good_one():
    note = sign_note("text\n", "log.example", KEY)
    bad = NoteSignature(KeyName.of(key_of(OTHER, "w.example")), bytes(64))
    keys = key_of(KEY, "log.example"), key_of(OTHER, "w.example")
    with pytest.raises(RefusedError, match=r"w\.example"):
        verify(note.signed_also(bad).to_bytes(), *keys)


def test_line_of_an_unknown_key_is_ignored_or_refused_as_asked():
    note = sign_note("text\n", "log.example", KEY)
    data = note.signed_also(NoteSignature(KeyName("w.example", b"abcd"), bytes(64))).to_bytes()
    assert verify(data, key_of(KEY, "log.example")) == 1
    with pytest.raises(RefusedError, match=r"w\.example"):
        verify(data, key_of(KEY, "log.example"), unknown=UnknownLines.REFUSE)


def test_known_key_that_signs_twice_is_refused():
    note = sign_note("text\n", "log.example", KEY)
    with pytest.raises(RefusedError, match="twice"):
        verify(note.signed_also(note.signatures[0]).to_bytes(), key_of(KEY, "log.example"))


def test_note_without_any_known_signature_is_refused():
    with pytest.raises(RefusedError, match="any known key"):
        verify(SPEC_NOTE)


def test_cosigning_key_is_no_note_key():
    with pytest.raises(FormatError, match="0x01"):
        text_check("text\n", VerifierKey("w.example", 0x04, KEY.public))


LINE = sign_note("text\n", "log.example", KEY).signatures[0].to_line()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        f"text\n{LINE}".encode(),
        f"text\n\n{LINE}"[:-1].encode(),
        f"text\n\n{LINE}\n".encode(),
        f"text\r\n\n{LINE}".encode(),
        f"te\0xt\n\n{LINE}".encode(),
        f"te\txt\n\n{LINE}".encode(),
        b"te\xffxt\n\n" + LINE.encode(),
        f"text\n\n{LINE.replace('—', '-')}".encode(),
        f"text\n\n{LINE.removeprefix('— ')}".encode(),
        f"text\n\n{LINE.replace('log.example', 'log+example')}".encode(),
        f"text\n\n{LINE.replace('log.example', '')}".encode(),
        f"text\n\n{LINE.replace('log.example', 'log example')}".encode(),
        "text\n\n{}".format(LINE.replace("log.example", "log\u2003example")).encode(),
        f"text\n\n{LINE.replace(' log', '  log')}".encode(),
        f"text\n\n{LINE[:-1]} \n".encode(),
        "text\n\n— log.example YWJjZA==\n".encode(),
        "text\n\n— log.example YWJjZGV=\n".encode(),
        "text\n\n— log.example YWJjZGU\n".encode(),
        f"text\n\n{LINE * (MAX_SIGNATURES + 1)}".encode(),
        b"x" * MAX_NOTE_BYTES + b"\n\n" + LINE.encode(),
    ],
)
def test_bytes_that_are_no_note_are_refused(data: bytes):
    with pytest.raises(FormatError):
        Note.from_bytes(data)


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "a\n\nb", "\ud800\n"])
def test_text_that_no_reader_would_accept_is_not_signed(text: str):
    with pytest.raises(FormatError):
        sign_note(text, "log.example", KEY)


@pytest.mark.parametrize("text", ["YQ", "YR==", "YQ==\n", " YQ==", "YQ=", "YQ==YQ==", "Y!Q=", "é"])
def test_base64_has_one_spelling(text: str):
    with pytest.raises(FormatError):
        decode_base64(text)
    assert decode_base64("YQ==") == b"a"


@pytest.mark.parametrize("position", range(len(SPEC_NOTE)))
def test_example_with_any_byte_changed_is_refused(position: int):
    key = VerifierKey.from_text(SPEC_KEY)
    for bit in range(8):
        data = bytearray(SPEC_NOTE)
        data[position] ^= 1 << bit
        with pytest.raises(AttestError):
            verify(bytes(data), key)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_parse_back_to_themselves_or_are_refused(data: bytes):
    for candidate in (data, b"text\n\n" + data, "text\n\n— a ".encode() + data):
        try:
            note = Note.from_bytes(candidate)
        except FormatError:
            continue
        assert note.to_bytes() == candidate


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=60))
def test_every_text_a_note_can_hold_is_signed_and_read_back(text: str):
    try:
        note = sign_note(text + "\n", "log.example", KEY)
    except FormatError:
        assert any(c < " " and c != "\n" for c in text)
        return
    assert verify(note.to_bytes(), key_of(KEY, "log.example")) == 1
