"""A witness: cosigns growth, refuses forks and rollback, and remembers before it signs."""

import threading
from pathlib import Path

import pytest

from attest import merkle, witness
from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.cosignature import open_cosigned
from attest.errors import EquivocationError, FormatError, InputError, RefusedError
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, VerifierKey
from attest.note import Note, NoteSignature, sign_note
from attest.witness import Witness

ORIGIN = "log.example/runs"
LOG_KEY = PrivateKey(b"\x05" * 32)
LOG = VerifierKey(ORIGIN, ALG_ED25519, LOG_KEY.public)
KEY = PrivateKey(b"\x06" * 32)
NOW = 1_790_000_000

HASHES = [merkle.leaf_hash(b"leaf %d" % i) for i in range(40)]
FORKED = [*HASHES[:6], merkle.leaf_hash(b"another leaf"), *HASHES[7:]]


class Clock:
    def __init__(self) -> None:
        self.now: float = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watcher(tmp_path: Path, clock: Clock) -> Witness:
    created = Witness.create(tmp_path / "witness", KEY, "w.example/1", clock)
    created.register(LOG)
    return created


def head(size: int, hashes: list[bytes] = HASHES, key: PrivateKey = LOG_KEY) -> bytes:
    root = merkle.tree_root(hashes[:size])
    return sign_checkpoint(Checkpoint(ORIGIN, size, root), key).to_bytes()


def grow(watcher: Witness, old: int, new: int, hashes: list[bytes] = HASHES) -> NoteSignature:
    proof = merkle.consistency_path(old, new, hashes) if old else []
    return watcher.cosign(old, proof, head(new, hashes))


def test_growth_is_cosigned_with_the_time(watcher: Witness, clock: Clock):
    for old, new in ((0, 3), (3, 3), (3, 10), (10, 40)):
        clock.now += 5
        line = grow(watcher, old, new)
        note = Note.from_bytes(head(new)).signed_also(line)
        opened = open_cosigned(note.to_bytes(), LOG, [watcher.vkey])
        assert opened.cosignatures[0].time == clock.now
        assert watcher.size(ORIGIN) == new


def test_newest_head_is_served_with_both_lines_and_no_others(watcher: Witness):
    stranger = sign_note("x\n", "other.example", KEY).signatures[0]
    note = Note.from_bytes(head(3)).signed_also(stranger)
    watcher.cosign(0, [], note.to_bytes())
    served = Note.from_bytes(watcher.newest(ORIGIN))
    assert [line.signer.name for line in served.signatures] == [ORIGIN, "w.example/1"]


def test_fork_is_refused(watcher: Witness):
    grow(watcher, 0, 10)
    proof = merkle.consistency_path(10, 20, FORKED)
    with pytest.raises(RefusedError) as refusal:
        watcher.cosign(10, proof, head(20, FORKED))
    assert refusal.value.check == "consistency"
    assert watcher.size(ORIGIN) == 10


def test_other_root_for_the_same_size_is_equivocation_with_evidence(watcher: Witness):
    grow(watcher, 0, 10)
    with pytest.raises(EquivocationError) as report:
        watcher.cosign(10, [], head(10, FORKED))
    assert report.value.exit_code == 3
    evidence = Path(str(report.value.evidence)).read_bytes()
    assert evidence == head(10) + head(10, FORKED)
    grow(watcher, 10, 20)


@pytest.mark.parametrize(
    ("old", "size", "check"), [(5, 20, "old size"), (0, 20, "old size"), (10, 5, "rollback")]
)
def test_stale_request_and_rollback_are_refused(watcher: Witness, old: int, size: int, check: str):
    grow(watcher, 0, 10)
    proof = merkle.consistency_path(old, size, HASHES) if 0 < old <= size else []
    with pytest.raises(RefusedError) as refusal:
        watcher.cosign(old, proof, head(size))
    assert refusal.value.check == check
    assert watcher.size(ORIGIN) == 10


def test_smaller_head_is_refused_whatever_old_size_it_claims(watcher: Witness):
    grow(watcher, 0, 10)
    for old in (0, 4, 5):
        with pytest.raises(RefusedError):
            watcher.cosign(old, [], head(5))


def test_first_head_takes_no_proof_and_later_ones_at_most_63_lines(watcher: Witness):
    with pytest.raises(RefusedError) as refusal:
        watcher.cosign(0, [bytes(32)], head(3))
    assert refusal.value.check == "consistency"
    grow(watcher, 0, 3)
    with pytest.raises(RefusedError, match="too long"):
        watcher.cosign(3, [bytes(32)] * 64, head(10))


def test_head_by_another_key_or_of_an_unknown_log_is_refused(watcher: Witness):
    with pytest.raises(RefusedError) as refusal:
        watcher.cosign(0, [], head(3, key=KEY))
    assert refusal.value.check == "note signature"
    text = Checkpoint("log.example/other", 3, HASHES[0]).to_text()
    with pytest.raises(RefusedError) as refusal:
        watcher.cosign(0, [], sign_note(text, "log.example/other", LOG_KEY).to_bytes())
    assert refusal.value.check == "origin"
    with pytest.raises(FormatError):
        watcher.cosign(0, [], b"not a note")


def test_nothing_is_signed_before_it_is_remembered(
    watcher: Witness, monkeypatch: pytest.MonkeyPatch
):
    grow(watcher, 0, 10)
    signed: list[str] = []

    def full_disk(path: Path, data: bytes) -> None:
        raise InputError("disk full")

    def recorded(text: str, *_: object) -> NoteSignature:
        signed.append(text)
        raise AssertionError("signed")

    monkeypatch.setattr(witness, "replace_file", full_disk)
    monkeypatch.setattr(witness, "cosign", recorded)
    with pytest.raises(InputError, match="disk full"):
        grow(watcher, 10, 20)
    assert signed == []
    assert watcher.size(ORIGIN) == 10


def test_crash_after_remembering_lets_the_same_head_be_signed_again(
    watcher: Witness, monkeypatch: pytest.MonkeyPatch
):
    def crash(*_: object) -> NoteSignature:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(witness, "cosign", crash)
        with pytest.raises(KeyboardInterrupt):
            grow(watcher, 0, 10)
    assert watcher.size(ORIGIN) == 10
    with pytest.raises(RefusedError):
        grow(watcher, 0, 12)
    grow(watcher, 10, 10)


def test_lost_memory_stops_the_witness(watcher: Witness, tmp_path: Path):
    grow(watcher, 0, 10)
    (memory,) = (tmp_path / "witness").glob("*.memory")
    memory.unlink()
    with pytest.raises(InputError, match="lost its memory"):
        watcher.cosign(0, [], head(3))


def test_memory_with_a_flipped_bit_in_its_head_is_refused(watcher: Witness, tmp_path: Path):
    grow(watcher, 0, 10)
    (memory,) = (tmp_path / "witness").glob("*.memory")
    data = bytearray(memory.read_bytes())
    data[-5] ^= 1
    memory.write_bytes(data)
    with pytest.raises((RefusedError, FormatError)):
        grow(watcher, 10, 20)
    memory.write_bytes(b"x\n" + data)
    with pytest.raises(FormatError, match="damaged"):
        grow(watcher, 10, 20)


def test_time_never_goes_back(watcher: Witness, clock: Clock):
    grow(watcher, 0, 3)
    clock.now -= 10
    note = Note.from_bytes(head(5)).signed_also(grow(watcher, 3, 5))
    assert open_cosigned(note.to_bytes(), LOG, [watcher.vkey]).cosignatures[0].time == NOW
    clock.now -= 3600
    with pytest.raises(RefusedError) as refusal:
        grow(watcher, 5, 7)
    assert refusal.value.check == "clock"


def test_restarted_witness_goes_on_from_what_it_remembers(
    watcher: Witness, tmp_path: Path, clock: Clock
):
    grow(watcher, 0, 10)
    again = Witness(tmp_path / "witness", KEY, clock)
    assert again.size(ORIGIN) == 10
    assert again.vkey == watcher.vkey
    with pytest.raises(RefusedError):
        grow(again, 5, 20)
    grow(again, 10, 20)


def test_two_requests_at_once_never_roll_the_memory_back(watcher: Witness):
    grow(watcher, 0, 1)
    outcomes: list[int] = []

    def ask(size: int) -> None:
        try:
            grow(watcher, 1, size)
        except RefusedError:
            return
        outcomes.append(size)

    threads = [threading.Thread(target=ask, args=(size,)) for size in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert watcher.size(ORIGIN) == outcomes[0]


def test_witness_of_another_key_and_a_second_one_are_refused(watcher: Witness, tmp_path: Path):
    with pytest.raises(InputError, match="another key"):
        Witness(tmp_path / "witness", LOG_KEY)
    with pytest.raises(InputError, match="already"):
        Witness.create(tmp_path / "witness", KEY, "w.example/1")
    with pytest.raises(InputError, match="already"):
        watcher.register(LOG)
    with pytest.raises(InputError):
        Witness(tmp_path / "nowhere", KEY)


def test_witness_takes_no_log_by_its_own_key_or_a_cosigning_key(watcher: Witness):
    for public, algorithm in ((KEY.public, ALG_ED25519), (LOG_KEY.public, ALG_COSIGNATURE)):
        with pytest.raises(InputError):
            watcher.register(VerifierKey("log.example/2", algorithm, public))
