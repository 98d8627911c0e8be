"""The log: an index for ever, heads that only grow, and proofs that strangers accept."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attest import merkle
from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.cosignature import open_cosigned
from attest.envelope import sign
from attest.errors import EquivocationError, InputError, RefusedError
from attest.log.fsck import fsck
from attest.log.head_store import HeadStore
from attest.log.places import Places
from attest.log.sequencer import LocalLog
from attest.note import Note, UnknownLines
from attest.tile_files import TileDirectory
from attest.tiles import TileFile


@pytest.fixture(params=["sqlite", "postgres"])
def places(request: pytest.FixtureRequest) -> Places:
    """Return each place in turn: everything here holds wherever the entries lie."""
    if request.param == "sqlite":
        return Places()
    return Places(store=request.getfixturevalue("postgres").schema())


@pytest.fixture
def trained(lab: ModuleType, log: LocalLog) -> Any:
    """Return a lab whose first three steps are logged."""
    trainer = lab.Lab()
    log.append([*trainer.opening(), *trainer.train(1, 1, 3)], keys=[trainer.author])
    return trainer


def head_of(log: LocalLog, note: bytes) -> Checkpoint:
    opened = open_cosigned(note, log.names.log, [log.names.witness], UnknownLines.REFUSE)
    assert len(opened.cosignatures) == 1
    return opened.checkpoint


def test_same_record_has_the_same_index_whoever_appends_it_again(log: LocalLog, trained: Any):
    step = trained.step(1, 4)
    assert log.append([step]) == [6]
    assert log.append([step, trained.step(1, 5), step]) == [6, 7, 6]
    assert log.size == 8
    assert log.index_of(step.record_hash()) == 6
    assert log.index_of(bytes(32)) is None


def test_log_that_has_a_record_takes_it_again_in_a_new_envelope(
    log: LocalLog, trained: Any, lab: ModuleType
):
    again = sign(log.entry(3).payload, [lab.key("lab worker-1-0")])
    assert log.append([again]) == [3]


def test_entries_are_given_back_as_they_came(log: LocalLog, trained: Any):
    assert log.entry(4) == trained.steps[1][2]
    assert list(log.entries(3, 6)) == list(trained.steps[1].values())
    for index in (-1, 6):
        with pytest.raises(InputError):
            log.entry(index)
    for start, stop in ((0, 7), (-1, 3), (4, 3)):
        with pytest.raises(InputError):
            list(log.entries(start, stop))


def test_empty_log_is_published_at_creation(log: LocalLog):
    assert head_of(log, log.published()) == Checkpoint(log.origin, 0, merkle.EMPTY_ROOT)
    assert log.append([]) == []
    assert log.checkpoint() == log.published()


def test_checkpoint_covers_everything_acknowledged(log: LocalLog, trained: Any):
    head = head_of(log, log.checkpoint())
    hashes = [merkle.leaf_hash(entry.to_bytes()) for entry in log.entries(0, 6)]
    assert (head.size, head.root) == (6, merkle.tree_root(hashes))
    assert log.published() == log.checkpoint()


def test_every_entry_is_provable_and_every_head_extends_those_before(log: LocalLog, trained: Any):
    heads = [head_of(log, log.checkpoint())]
    for first, last in ((4, 4), (5, 80), (81, 300), (301, 302)):
        log.append(trained.train(1, first, last))
        heads.append(head_of(log, log.checkpoint()))
    newest = heads[-1]
    for old in heads:
        proof = log.consistency(old.size, newest.size)
        merkle.verify_consistency(old.size, newest.size, proof, old.root, newest.root)
    for head in heads:
        for index in {0, 3, head.size - 1}:
            leaf = merkle.leaf_hash(log.entry(index).to_bytes())
            path = log.inclusion(index, head.size)
            merkle.verify_inclusion(index, head.size, leaf, path, head.root)


def test_proof_beyond_the_signed_head_is_refused(log: LocalLog, trained: Any):
    with pytest.raises(InputError, match="checkpoint it first"):
        log.inclusion(0, 6)
    log.checkpoint()
    log.inclusion(0, 6)


def test_reopened_log_goes_on_where_it_was(log: LocalLog, trained: Any, run_directory: Path):
    note = log.checkpoint()
    log.append([trained.step(1, 4)])
    log.close()
    with LocalLog.open(run_directory / "log") as again:
        assert again.size == 7
        assert again.published() == note
        assert again.append([trained.step(1, 4), trained.step(1, 5)]) == [6, 7]
        assert head_of(again, again.checkpoint()).size == 8
        assert again.last_step(next(iter(_attempts(trained)))) == 5
    assert fsck(run_directory / "log").size == 8


def _attempts(trained: Any) -> list[str]:
    return [envelope.record_hash().hex() for envelope in trained.attempts.values()]


def test_last_step_is_derived_from_the_log_itself(log: LocalLog, trained: Any):
    (attempt,) = _attempts(trained)
    assert log.last_step(attempt) == 3
    log.append([trained.attempt(2, after=(1, 2))])
    assert log.last_step(_attempts(trained)[1]) == 2
    assert log.last_step("ab" * 32) is None


def test_log_without_its_keys_takes_records_but_signs_nothing(
    log: LocalLog, trained: Any, run_directory: Path, tmp_path: Path
):
    log.close()
    nowhere = tmp_path / "no keys"
    with LocalLog.open(run_directory / "log", keys=nowhere) as bare:
        assert bare.append([trained.step(1, 4)]) == [6]
        with pytest.raises(InputError, match="without its keys"):
            bare.checkpoint()


def test_log_is_not_opened_with_another_logs_key(
    log: LocalLog, run_directory: Path, tmp_path: Path, lab: ModuleType
):
    log.close()
    for name, other in (("log", "x"), ("witness", "y")):
        keys = tmp_path / other
        keys.mkdir()
        for kind in ("log", "witness"):
            lab.key(other if kind == name else kind).save(keys / kind)
        with pytest.raises(InputError):
            LocalLog.open(run_directory / "log", keys=keys)


def test_log_is_not_created_over_anything(run_directory: Path, lab: ModuleType):
    (run_directory / "log").mkdir()
    (run_directory / "log" / "something").write_text("")
    with pytest.raises(InputError, match="not empty"):
        LocalLog.create(run_directory / "log", lab.key("log"), lab.key("witness"), "log.example")
    with pytest.raises(InputError):
        LocalLog.open(run_directory / "nowhere")


def test_two_logs_open_at_once_see_each_other(log: LocalLog, trained: Any, run_directory: Path):
    with LocalLog.open(run_directory / "log") as other:
        assert other.append([trained.step(1, 4)]) == [6]
        assert log.append([trained.step(1, 5)]) == [7]
        first = head_of(log, log.checkpoint())
        assert other.append([trained.step(1, 6)]) == [8]
        second = head_of(other, other.checkpoint())
        assert (first.size, second.size) == (8, 9)
        assert head_of(log, log.checkpoint()) == second
        log.inclusion(8, 9)
    fsck(run_directory / "log")


def test_key_introduced_by_another_process_is_known(
    log: LocalLog, trained: Any, run_directory: Path, lab: ModuleType
):
    with LocalLog.open(run_directory / "log") as other:
        other.append([trained.intent("acme")], keys=[lab.key("acme").public])
    assert log.append([trained.intent("acme", about="contract")]) == [7]


def test_head_is_exchanged_only_for_the_one_that_was_read(tmp_path: Path):
    heads = HeadStore(tmp_path / "head")
    heads.create(b"one")
    heads.swap(b"one", b"two")
    with pytest.raises(RefusedError) as refusal:
        heads.swap(b"one", b"three")
    assert refusal.value.check == "head"
    assert heads.read() == b"two"
    with pytest.raises(InputError, match="already"):
        heads.create(b"four")


def test_writer_that_lost_the_race_for_the_head_signs_nothing(
    log: LocalLog, trained: Any, run_directory: Path, monkeypatch: pytest.MonkeyPatch
):
    log.checkpoint()
    log.append([trained.step(1, 4)])
    swap = HeadStore.swap

    def overtaken(self: HeadStore, expected: bytes, note: bytes) -> None:
        swap(self, expected, note)  # the same head, written by a faster instance
        swap(self, expected, note)

    monkeypatch.setattr(HeadStore, "swap", overtaken)
    with pytest.raises(RefusedError, match="another writer"):
        log.checkpoint()
    monkeypatch.undo()
    assert head_of(log, log.checkpoint()).size == 7


def test_head_that_is_no_prefix_of_the_entries_is_not_signed_on(
    log: LocalLog, trained: Any, run_directory: Path, lab: ModuleType
):
    """A second instance, started from a copy, has signed another history in the same store."""
    log.checkpoint()
    other = sign_checkpoint(Checkpoint(log.origin, 5, merkle.leaf_hash(b"x")), lab.key("log"))
    (run_directory / "log" / "head").write_bytes(other.to_bytes())
    with pytest.raises(RefusedError) as refusal:
        log.checkpoint()
    assert refusal.value.check == "consistency"
    assert (run_directory / "log" / "head").read_bytes() == other.to_bytes()


def test_head_beyond_the_entries_stops_an_open_log(
    log: LocalLog, trained: Any, run_directory: Path, lab: ModuleType
):
    ahead = sign_checkpoint(Checkpoint(log.origin, 50, merkle.leaf_hash(b"x")), lab.key("log"))
    (run_directory / "log" / "head").write_bytes(ahead.to_bytes())
    for use in (lambda: log.append([trained.step(1, 4)]), log.checkpoint):
        with pytest.raises(RefusedError) as refusal:
            use()
        assert refusal.value.check == "behind head"


def test_tile_that_reached_the_disk_altered_is_not_signed_over(
    log: LocalLog, trained: Any, monkeypatch: pytest.MonkeyPatch
):
    write = TileDirectory.write

    def faulty(self: TileDirectory, files: Sequence[TileFile]) -> None:
        altered = (f.data[:-1] + bytes([f.data[-1] ^ 1]) for f in files)
        write(self, [TileFile(f.path, data) for f, data in zip(files, altered, strict=True)])

    with monkeypatch.context() as patch:
        patch.setattr(TileDirectory, "write", faulty)
        with pytest.raises(RefusedError) as refusal:
            log.checkpoint()
        assert refusal.value.check == "tile"
    assert head_of(log, log.published()).size == 0


def test_proofs_are_not_made_from_tiles_that_were_altered(
    log: LocalLog, trained: Any, run_directory: Path
):
    log.checkpoint()
    with LocalLog.open(run_directory / "log") as again:
        tile = run_directory / "log" / "tile" / "0" / "000.p" / "6"
        tile.write_bytes(bytes([tile.read_bytes()[0] ^ 1]) + tile.read_bytes()[1:])
        for prove in (lambda: again.inclusion(5, 6), lambda: again.consistency(3, 6)):
            with pytest.raises(RefusedError) as refusal:
                prove()
            assert refusal.value.check == "tile"


def test_lost_head_is_not_replaced(log: LocalLog, run_directory: Path):
    log.close()
    (run_directory / "log" / "head").unlink()
    with pytest.raises(InputError, match="head"):
        LocalLog.open(run_directory / "log")


def test_crash_between_signing_and_publishing_is_made_good(
    log: LocalLog, trained: Any, run_directory: Path, monkeypatch: pytest.MonkeyPatch
):
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("attest.witness.Witness.cosign", crash)
        with pytest.raises(KeyboardInterrupt):
            log.checkpoint()
    log.close()
    with LocalLog.open(run_directory / "log") as again:
        assert head_of(again, again.published()).size == 0
        fsck(run_directory / "log")
        assert head_of(again, again.checkpoint()).size == 6


def test_crash_between_tiles_and_signing_is_made_good(
    log: LocalLog, trained: Any, run_directory: Path, monkeypatch: pytest.MonkeyPatch
):
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    log.checkpoint()
    # The full tile replaces the partial one that the signed head still speaks of.
    log.append(trained.train(1, 4, 300))
    with monkeypatch.context() as patch:
        patch.setattr(HeadStore, "swap", crash)
        with pytest.raises(KeyboardInterrupt):
            log.checkpoint()
    log.append(trained.train(1, 301, 310))
    fsck(run_directory / "log")
    tile = run_directory / "log" / "tile" / "0" / "000"
    data = tile.read_bytes()
    tile.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RefusedError, match="tile/0/000"):
        fsck(run_directory / "log")
    log.close()
    there = pytest.raises(RefusedError, match="tile/0/000 is there already")
    with LocalLog.open(run_directory / "log") as again, there:
        again.checkpoint()
    tile.write_bytes(data)
    with LocalLog.open(run_directory / "log") as again:
        merkle.verify_inclusion(
            3,
            6,
            merkle.leaf_hash(again.entry(3).to_bytes()),
            again.inclusion(3, 6),
            head_of(again, again.published()).root,
        )
        assert head_of(again, again.checkpoint()).size == 313
    fsck(run_directory / "log")


def test_log_that_was_forked_behind_its_witness_is_not_cosigned(
    log: LocalLog, trained: Any, lab: ModuleType
):
    log.checkpoint()
    other = sign_checkpoint(Checkpoint(log.origin, 6, merkle.leaf_hash(b"x")), lab.key("log"))
    witness = log._signers.witness  # type: ignore[union-attr]
    with pytest.raises(EquivocationError):
        witness.cosign(6, [], other.to_bytes())


def test_published_checkpoint_with_a_broken_line_is_not_handed_out(
    log: LocalLog, trained: Any, run_directory: Path
):
    note = Note.from_bytes(log.checkpoint())
    path = run_directory / "log" / "checkpoint"
    path.write_bytes(Note(note.text, note.signatures[:1]).to_bytes())
    for read in (log.published, log.checkpoint):
        with pytest.raises(RefusedError) as refusal:
            read()
        assert refusal.value.check == "cosignature"


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.data())
def test_heads_of_any_batches_are_consistent(
    tmp_path_factory: pytest.TempPathFactory,
    lab: ModuleType,
    batches: list[int],
    data: st.DataObject,
):
    directory = tmp_path_factory.mktemp("batches") / "log"
    trainer = lab.Lab()
    with LocalLog.create(directory, lab.key("log"), lab.key("witness"), "log.example/b") as log:
        log.append(trainer.opening(), keys=[trainer.author])
        heads: list[Checkpoint] = []
        step = 0
        for count in batches:
            log.append(trainer.train(1, step + 1, step + count))
            step += count
            if data.draw(st.booleans()):
                heads.append(head_of(log, log.checkpoint()))
        heads.append(head_of(log, log.checkpoint()))
        for old, new in zip(heads, heads[1:], strict=False):
            proof = log.consistency(old.size, new.size)
            merkle.verify_consistency(old.size, new.size, proof, old.root, new.root)
    fsck(directory)
