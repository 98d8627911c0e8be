"""Cosignatures: the worked example byte for byte, and nothing counted that was not signed."""

import base64
import hashlib

import pytest

from attest import merkle
from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.cosignature import Cosignature, cosign, open_cosigned
from attest.errors import AttestError, FormatError, RefusedError
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, VerifierKey
from attest.note import Note, NoteSignature, UnknownLines

# A log of three records that the Go, Python and JavaScript tools of the ecosystem accepted; every
# key is the SHA-256 of its name.
ORIGIN = "log.example/anh-test"
LOG_VKEY = "log.example/anh-test+772b0e7c+AZsfhHkc/HZjBFhU04netcqVRJ2HXydqg4QLBgqznPxx"
WITNESS_VKEY = "w1.example/a+d41e9006+BOctVDQwVW+5d5UVLgg8041gWp+vLcKg2AiGVfg0Hg6e"
TRAINER_VKEY = "trainer.example/node7+acd10507+AdV04ImQwD8gfJPsk+jPc0+Wtov5NPL+tvcAc3QfnhzE"
EXAMPLE = (
    "log.example/anh-test\n"
    "3\n"
    "79j4zPGzpQ0D7LJaVDgjlQ37vCviSHAsQJryiySVROo=\n"
    "\n"
    "— log.example/anh-test dysOfL92emp3DHuce9euUAS1m6gJuHXpS405yJXM5ygKFm5FfCm0XAgvdYFACZc0e"
    "OQj79eBVVLFJWvp/llwrXtjZQM=\n"
    "— w1.example/a 1B6QBgAAAABqsTuARtwnLp8HZke+8mq1O2xoVVj1OOYiuGV/PhKcW3mVXLVd2AjILZ8LOtNkH"
    "z2cKBA0b/dp0yeBOND59F9bXyYbAQ==\n"
).encode()
TIME = 1_790_000_000
LEAF = bytes.fromhex("25f47c1035e99a94bfd7885e4a00516c4625e0d58ec174c0f95e1e60dbf29541")
PATH = [
    base64.b64decode("CT/3Zbp/OVAG0f6NVFeK125OpE/+FDzx8P1HrufRNf0="),
    base64.b64decode("gxxESueNoDmQxHsI/om1WYXY15Ov3fGeBvbNuGEkBmM="),
]


def named(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(name.encode()).digest())


LOG = VerifierKey.from_text(LOG_VKEY)
WITNESS = VerifierKey.from_text(WITNESS_VKEY)
OTHER = VerifierKey("w2.example/b", ALG_COSIGNATURE, named("w2.example/b").public)


def test_worked_example_is_reproduced_byte_for_byte():
    root = merkle.root_from_inclusion(1, 3, LEAF, PATH)
    note = sign_checkpoint(Checkpoint(ORIGIN, 3, root), named("log"))
    note = note.signed_also(cosign(note.text, WITNESS.name, named("w1.example/a"), TIME))
    assert note.to_bytes() == EXAMPLE


def test_worked_examples_keys_come_from_their_names():
    trainer = VerifierKey("trainer.example/node7", ALG_ED25519, named("trainer").public)
    assert trainer.to_text() == TRAINER_VKEY
    assert LOG.public == named("log").public
    assert WITNESS.public == named("w1.example/a").public


def test_worked_example_opens_with_its_time():
    opened = open_cosigned(EXAMPLE, LOG, [WITNESS, OTHER], UnknownLines.REFUSE)
    assert opened.cosignatures == (Cosignature(WITNESS, TIME),)
    assert opened.checkpoint.size == 3


def test_cosigned_checkpoint_with_any_bit_flipped_is_refused():
    for position in range(len(EXAMPLE)):
        for bit in range(8):
            data = bytearray(EXAMPLE)
            data[position] ^= 1 << bit
            with pytest.raises(AttestError):
                open_cosigned(bytes(data), LOG, [WITNESS], UnknownLines.REFUSE)


def test_flipped_bit_never_adds_to_what_was_said_where_unknown_lines_are_ignored():
    honest = open_cosigned(EXAMPLE, LOG, [WITNESS])
    for position in range(len(EXAMPLE)):
        data = bytearray(EXAMPLE)
        data[position] ^= 1
        try:
            opened = open_cosigned(bytes(data), LOG, [WITNESS])
        except AttestError:
            continue
        # The witness's line has become a stranger's: it no longer counts.
        assert opened.checkpoint == honest.checkpoint
        assert opened.cosignatures == ()


def test_witness_line_alone_does_not_make_a_checkpoint():
    note = Note.from_bytes(EXAMPLE)
    with pytest.raises(RefusedError, match="not signed by log"):
        open_cosigned(Note(note.text, note.signatures[1:]).to_bytes(), LOG, [WITNESS])


def test_time_is_covered_by_the_signature():
    note = Note.from_bytes(EXAMPLE)
    log, witness = note.signatures
    later = (TIME + 1).to_bytes(8, "big") + witness.data[8:]
    moved = Note(note.text, (log, NoteSignature(witness.signer, later)))
    with pytest.raises(RefusedError, match="does not verify"):
        open_cosigned(moved.to_bytes(), LOG, [WITNESS])


def test_plain_note_signature_is_no_cosignature_and_the_other_way_round():
    note = Note.from_bytes(EXAMPLE)
    log, witness = note.signatures
    plain = NoteSignature(witness.signer, named("w1.example/a").sign(note.text.encode()))
    with pytest.raises(FormatError):
        open_cosigned(Note(note.text, (log, plain)).to_bytes(), LOG, [WITNESS])
    with pytest.raises(FormatError, match="0x04"):
        open_cosigned(EXAMPLE, LOG, [VerifierKey(WITNESS.name, ALG_ED25519, WITNESS.public)])
    with pytest.raises(FormatError, match="0x01"):
        open_cosigned(EXAMPLE, VerifierKey(ORIGIN, ALG_COSIGNATURE, LOG.public), [WITNESS])


def test_one_key_under_two_witness_names_is_refused():
    double = VerifierKey("w3.example/c", ALG_COSIGNATURE, WITNESS.public)
    with pytest.raises(FormatError, match="different keys"):
        open_cosigned(EXAMPLE, LOG, [WITNESS, double])
    log_as_witness = VerifierKey("w3.example/c", ALG_COSIGNATURE, LOG.public)
    with pytest.raises(FormatError, match="different keys"):
        open_cosigned(EXAMPLE, LOG, [log_as_witness])


@pytest.mark.parametrize("time", [0, -1, 2**63])
def test_times_that_no_witness_may_sign_are_refused(time: int):
    with pytest.raises(FormatError):
        cosign("text\n", WITNESS.name, named("w1.example/a"), time)


def test_line_without_a_time_is_refused():
    note = Note.from_bytes(EXAMPLE)
    log, witness = note.signatures
    for data in (bytes(8) + witness.data[8:], witness.data[:-1], witness.data + b"\0"):
        bad = Note(note.text, (log, NoteSignature(witness.signer, data)))
        with pytest.raises(FormatError):
            open_cosigned(bad.to_bytes(), LOG, [WITNESS])
