"""The client's memory: a log that shows two histories is caught, with evidence on disk."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.consistency_file import ConsistencyFile
from attest.equivocation import check_evidence, encode_evidence
from attest.errors import EquivocationError, FormatError, InputError, RefusedError
from attest.memory import Memory


def doubt(verdict: Any) -> str:
    found = [words for words in verdict.doubts if words.startswith("history not checked")]
    return found[0] if found else ""


def grown(tale: ModuleType, count: int) -> Any:
    story = tale.honest()
    story.fill(count)
    return story


def test_first_checkpoint_is_remembered_and_said_to_be_first(
    tale: ModuleType, tmp_path: Path
) -> None:
    story, memory = tale.honest(), Memory(tmp_path / "state")
    assert memory.newest(tale.vkey("log")) is None
    assert "first checkpoint" in doubt(story.verify(history=memory))
    remembered = memory.newest(tale.vkey("log"))
    assert remembered is not None
    assert remembered.checkpoint.size == len(story.leaves)
    again = story.verify(history=memory)
    assert doubt(again) == ""
    assert "history: the checkpoint extends the one remembered" in again.checked


def test_growth_shown_in_the_proof_is_checked_and_remembered(
    tale: ModuleType, tmp_path: Path
) -> None:
    memory = Memory(tmp_path)
    old = tale.honest()
    old.verify(history=memory)
    new = grown(tale, 7)
    assert doubt(new.verify(new.proof(sizes=(20,)), history=memory)) == ""
    assert memory.newest(tale.vkey("log")).checkpoint.size == 27


def test_growth_that_nothing_shows_is_said_and_not_remembered(
    tale: ModuleType, tmp_path: Path
) -> None:
    memory = Memory(tmp_path)
    tale.honest().verify(history=memory)
    words = doubt(grown(tale, 7).verify(history=memory))
    assert "nothing ties size 27 to the remembered size 20" in words
    assert memory.newest(tale.vkey("log")).checkpoint.size == 20


def test_growth_shown_by_a_path_is_checked(tale: ModuleType, tmp_path: Path) -> None:
    new = grown(tale, 7)
    memory = Memory(tmp_path, new.consistency)
    tale.honest().verify(history=memory)
    assert doubt(new.verify(history=memory)) == ""
    # An older proof is consistent with the newer memory, which stays.
    assert doubt(tale.honest().verify(history=memory)) == ""
    assert memory.newest(tale.vkey("log")).checkpoint.size == 27


def test_path_that_does_not_hold_is_refused(tale: ModuleType, tmp_path: Path) -> None:
    tale.honest().verify(history=Memory(tmp_path))
    new = grown(tale, 7)
    wrong = list(new.consistency(20, 27))
    wrong[0] = bytes(32)
    for path in (wrong, wrong[:-1], [b"short"], []):
        memory = Memory(tmp_path, lambda old, size, path=path: path)
        with pytest.raises(RefusedError) as caught:
            new.verify(history=memory)
        assert caught.value.check == "history"
    assert Memory(tmp_path).newest(tale.vkey("log")).checkpoint.size == 20


def test_other_root_at_the_same_size_is_equivocation(tale: ModuleType, tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    tale.honest().verify(history=memory)
    other = tale.honest()
    other.replace_entry(7, other.entry(0))
    # The second head need not be cosigned: the log's own signature convicts it.
    alone = other.proof(other.checkpoint(witnesses=()))
    for proof in (None, alone):
        with pytest.raises(EquivocationError) as caught:
            other.verify(proof, history=memory)
        assert caught.value.exit_code == 3
        path = caught.value.evidence
        assert isinstance(path, Path)
        assert str(path) in str(caught.value)
        first, second = check_evidence(path.read_bytes(), tale.vkey("log"))
        assert first.size == second.size == 20
        assert first.root != second.root


def test_tree_that_does_not_extend_the_remembered_one_is_equivocation(
    tale: ModuleType, tmp_path: Path
) -> None:
    memory = Memory(tmp_path)
    tale.honest().verify(history=memory)
    other = grown(tale, 7)
    other.replace_entry(7, other.entry(0))
    # The status would give the fork away by itself; a run without one does not.
    proof = other.proof_but("status", sizes=(20,))
    with pytest.raises(EquivocationError) as caught:
        other.verify(proof, history=memory)
    data = caught.value.evidence.read_bytes()
    first, second = check_evidence(data, tale.vkey("log"))
    assert (first.size, second.size) == (20, 27)
    assert memory.newest(tale.vkey("log")).checkpoint == first


def test_evidence_that_shows_nothing_is_refused(tale: ModuleType) -> None:
    log = tale.vkey("log")
    story, more = tale.honest(), grown(tale, 7)
    old, new = story.checkpoint(), more.checkpoint()
    honest = more.proof(sizes=(20,))
    shown_elsewhere = more.proof(sizes=(19,))
    for first, second, proof in (
        (old, old, None),
        (old, new, honest),
        (old, new, shown_elsewhere),
        (old, new, story.proof()),
    ):
        with pytest.raises((RefusedError, FormatError)):
            check_evidence(encode_evidence(first, second, proof), log)
    # A tree made up for the purpose, which the log never signed.
    made_up = grown(tale, 7)
    made_up.replace_entry(7, made_up.entry(0))
    for second in (new, made_up.checkpoint(root=more.root())):
        proof = replace(made_up.proof(sizes=(20,)), checkpoint=second)
        with pytest.raises(RefusedError):
            check_evidence(encode_evidence(old, second, proof), log)
    with pytest.raises(RefusedError):
        check_evidence(encode_evidence(old, new, honest), tale.vkey("stranger"))
    for data in (b"", b"{}", encode_evidence(old, new, honest).replace(b"log eq", b"log eQ")):
        with pytest.raises(FormatError):
            check_evidence(data, log)


def test_head_that_witnesses_did_not_sign_is_not_remembered(
    tale: ModuleType, tmp_path: Path
) -> None:
    memory, story = Memory(tmp_path), tale.honest()
    for checkpoint in (story.checkpoint(witnesses=("wit-a",)), story.checkpoint(root=bytes(32))):
        proof = replace(story.proof(), checkpoint=checkpoint)
        with pytest.raises(RefusedError):
            story.verify(proof, history=memory)
    assert memory.newest(tale.vkey("log")) is None


def test_memory_by_another_key_or_damaged_is_named(tale: ModuleType, tmp_path: Path) -> None:
    memory, story = Memory(tmp_path), tale.honest()
    story.verify(history=memory)
    (path,) = tmp_path.glob("*.checkpoint")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=path.name):
        story.verify(history=memory)


def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        Memory(tmp_path / "file" / "state")


def test_many_clients_at_once_leave_one_whole_memory(tale: ModuleType, tmp_path: Path) -> None:
    sizes = range(20, 26)
    jobs = [grown(tale, size - 20).proof(sizes=range(20, size)) for size in sizes]
    story, policy = tale.honest(), tale.policy()

    def verify(proof: Any) -> str:
        memory = Memory(tmp_path)
        return doubt(story.verify(proof, policy=policy, history=memory))

    with ThreadPoolExecutor(len(jobs)) as pool:
        doubts = list(pool.map(verify, jobs))
    newest = Memory(tmp_path).newest(tale.vkey("log"))
    assert newest is not None and newest.checkpoint.size in sizes
    assert sum("first checkpoint" in words for words in doubts) == 1
    assert not list(tmp_path.glob(".*"))


# --- the file that ties two sizes together ---


def test_consistency_file_ties_two_sizes(tale: ModuleType, tmp_path: Path) -> None:
    new = grown(tale, 7)
    file = ConsistencyFile(tale.ORIGIN, 20, 27, tuple(new.consistency(20, 27)))
    path = tmp_path / "history.json"
    path.write_bytes(file.to_bytes())
    assert ConsistencyFile.load(path) == file
    state = tmp_path / "state"
    tale.honest().verify(history=Memory(state))
    memory = Memory(state, ConsistencyFile.load(path).consistency)
    assert doubt(new.verify(history=memory)) == ""
    with pytest.raises(RefusedError) as caught:
        grown(tale, 9).verify(history=memory)
    assert caught.value.check == "history"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"new":2,"old":1,"origin":"o","path":[],"version":2}',
        b'{"new":"2","old":1,"origin":"o","path":[],"version":1}',
        b'{"new":2,"old":true,"origin":"o","path":[],"version":1}',
        b'{"new":2,"old":1,"origin":3,"path":[],"version":1}',
        b'{"new":2,"old":1,"origin":"o","path":{},"version":1}',
        b'{"new":2,"old":1,"origin":"o","path":[1],"version":1}',
        b'{"new":2,"old":1,"origin":"o","path":["!"],"version":1}',
        b'{"new":2,"old":1,"origin":"o","path":[],"version":1}\n',
    ],
)
def test_damaged_consistency_file_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        ConsistencyFile.from_bytes(data)
