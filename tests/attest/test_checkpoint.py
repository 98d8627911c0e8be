"""Log checkpoints: three lines in one spelling, signed by the log that the first line names."""

import base64

import pytest

from attest.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from attest.errors import AttestError, FormatError, RefusedError
from attest.keys import ALG_ED25519, PrivateKey, VerifierKey
from attest.merkle import EMPTY_ROOT
from attest.note import Note, UnknownLines, sign_note

# C2SP tlog-checkpoint v1.0.0; the specification prints no verifier key for it.
SPEC_CHECKPOINT = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Z"
    "hcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
).encode()

ORIGIN = "log.example/runs"
KEY = PrivateKey(b"\x03" * 32)
LOG = VerifierKey(ORIGIN, ALG_ED25519, KEY.public)
ROOT = bytes(range(32))
ROOT_LINE = base64.b64encode(ROOT).decode()
SIGNED = sign_checkpoint(Checkpoint(ORIGIN, 7, ROOT), KEY).to_bytes()


def test_example_of_the_specification_is_read_and_written_back():
    note = Note.from_bytes(SPEC_CHECKPOINT)
    checkpoint = Checkpoint.from_text(note.text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.to_text() == note.text
    assert note.to_bytes() == SPEC_CHECKPOINT


def test_signed_checkpoint_opens_with_the_logs_key():
    assert open_checkpoint(SIGNED, LOG, UnknownLines.REFUSE) == Checkpoint(ORIGIN, 7, ROOT)


def test_checkpoint_of_another_key_or_name_is_refused():
    other = VerifierKey(ORIGIN, ALG_ED25519, PrivateKey(b"\x04" * 32).public)
    for key in (other, VerifierKey("log.example/other", ALG_ED25519, KEY.public)):
        with pytest.raises(RefusedError):
            open_checkpoint(SIGNED, key)


def test_checkpoint_that_names_another_origin_is_refused_under_a_right_signature():
    text = Checkpoint("log.example/other", 7, ROOT).to_text()
    with pytest.raises(RefusedError, match="other"):
        open_checkpoint(sign_note(text, ORIGIN, KEY).to_bytes(), LOG)


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n7\n{ROOT_LINE}\nextension\n",
        f"{ORIGIN}\n7\n{ROOT_LINE}",
        f"{ORIGIN}\n7\n",
        f"{ORIGIN}\n07\n{ROOT_LINE}\n",
        f"{ORIGIN}\n+7\n{ROOT_LINE}\n",
        f"{ORIGIN}\n-7\n{ROOT_LINE}\n",
        f"{ORIGIN}\n 7\n{ROOT_LINE}\n",
        f"{ORIGIN}\n7_0\n{ROOT_LINE}\n",
        f"{ORIGIN}\n٧\n{ROOT_LINE}\n",
        f"{ORIGIN}\n9223372036854775808\n{ROOT_LINE}\n",
        f"{ORIGIN}\n{'9' * 5000}\n{ROOT_LINE}\n",
        f"{ORIGIN}\n0\n{ROOT_LINE}\n",
        f"\n7\n{ROOT_LINE}\n",
        f"{ORIGIN}\n7\n{ROOT_LINE[:-1]}\n",
        f"{ORIGIN}\n7\n{base64.b64encode(ROOT[:31]).decode()}\n",
        f"{ORIGIN}\n7\n{base64.b64encode(ROOT + b'x').decode()}\n",
    ],
)
def test_text_that_is_no_checkpoint_is_refused_even_signed(text: str):
    with pytest.raises(FormatError):
        Checkpoint.from_text(text)
    if text.endswith("\n"):
        with pytest.raises(FormatError):
            open_checkpoint(sign_note(text, ORIGIN, KEY).to_bytes(), LOG)


def test_empty_log_has_one_root():
    assert Checkpoint(ORIGIN, 0, EMPTY_ROOT).to_text() == (
        f"{ORIGIN}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    )
    with pytest.raises(FormatError):
        Checkpoint(ORIGIN, 0, ROOT)


def test_checkpoint_with_any_bit_flipped_is_refused():
    for position in range(len(SIGNED)):
        for bit in range(8):
            data = bytearray(SIGNED)
            data[position] ^= 1 << bit
            with pytest.raises(AttestError):
                open_checkpoint(bytes(data), LOG)


def test_checkpoint_with_a_byte_lost_or_doubled_is_refused():
    for position in range(len(SIGNED)):
        for data in (
            SIGNED[:position] + SIGNED[position + 1 :],
            SIGNED[:position] + SIGNED[position : position + 1] + SIGNED[position:],
        ):
            if data != SIGNED:
                with pytest.raises(AttestError):
                    open_checkpoint(data, LOG)
