"""A recording that is no evaluation of its program is refuted by two of its entries."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from anh_jax.attested_run import run_id
from anh_jax.audit import recording_refutation
from anh_jax.audit.operator import Committed
from anh_jax.audit.recording import FolderRecording, RecordingWriter, gradient_inputs, record
from anh_jax.audit.recording_refutation import judge_recording
from anh_jax.audit.refutation import signed_parts
from anh_jax.audit.refuting_recordings import (
    Questioned,
    _argument_file,
    _file,
    refute_end,
    refute_wiring,
)
from anh_jax.audit.wiring import Argument, Known, Result, wiring
from anh_jax.digest.host import tree_digest
from anh_jax.errors import AnhError
from anh_jax.program.interpret import read_stored
from anh_jax.program.tree import leaves_of, path_text
from anh_jax.workbench import MeshSizes
from attest.contract import Numerics
from attest.envelope import sign
from attest.errors import AttestError, RefusedError
from attest.merkle import tree_root
from attest.recording_refutation import RecordingRefutation

OTHER = "0" * 64
TOLERANCE = 1e-3


@dataclasses.dataclass
class Recorded:
    """A step of a run, recorded, and what its trainer has of it."""

    run: Any
    opened: Any
    stored: Any
    folder: Path
    made: int = 0

    def asked(self, recording: FolderRecording) -> Questioned:
        signed = signed_parts(self.run, self.opened.signed, recording.envelope)
        opened = self.opened
        return Questioned(signed, self.stored, recording, opened.previous, opened.before)

    def honest(self) -> FolderRecording:
        return FolderRecording(self.folder)

    def changed(self, entries: list[Any]) -> FolderRecording:
        """Return the recording of other entries, signed by the run key all the same."""
        self.made += 1
        folder = self.folder.parent / f"{self.folder.name}-{self.made}"
        shutil.copytree(self.folder, folder)
        said = self.honest().said
        leaves = [entry.leaf() for entry in entries]
        said = dataclasses.replace(said, count=len(leaves), root=tree_root(leaves).hex())
        envelope = sign(said.payload(), [self.run.key("run")])
        (folder / "recording.json").write_bytes(envelope.to_bytes())
        lines = b"".join(entry.to_bytes() + b"\n" for entry in entries)
        (folder / "entries.jsonl").write_bytes(lines)
        return FolderRecording(folder)


@pytest.fixture(scope="module")
def recorded_by(trainers, workshop, tmp_path_factory):
    """Return a function that records the bad step of a run as an honest device does."""

    def made(run: Any, fault: Any) -> Recorded:
        opened = trainers.opened_step(workshop, run, fault, trainers.BAD)
        stored = workshop.materials.programs.stored["gradient"]
        bench = workshop.bench(None, MeshSizes(), microbatch=None)
        folder = tmp_path_factory.mktemp("recorded") / "r"
        inputs = gradient_inputs(opened.before, bench.batch(trainers.BAD).pieces)
        row = opened.signed.row_hash.hex()
        with RecordingWriter(folder) as writer:
            record(read_stored(stored), inputs, writer)
            writer.finish(
                run.key("run"), run=run_id(run), step=trainers.BAD, row=row, program=stored.id
            )
        return Recorded(run, opened, stored, folder)

    return made


@pytest.fixture(scope="module")
def recorded(honest, recorded_by, trainers) -> Recorded:
    return recorded_by(honest, trainers.Fault())


@pytest.fixture(scope="module")
def wired(recorded):
    return wiring(read_stored(recorded.stored))


def judged(file: RecordingRefutation):
    return judge_recording(RecordingRefutation.from_bytes(file.to_bytes()))


def first_of(wired, kind) -> tuple[int, int]:
    """Return an operator and the number of its operand that has a source of a kind."""
    return next(
        (index, operand)
        for index, operator in enumerate(wired.operators)
        for operand, source in enumerate(operator.operands)
        if isinstance(source, kind)
    )


def with_operand(entry, operand: int, digest: str):
    inputs = (*entry.inputs[:operand], digest, *entry.inputs[operand + 1 :])
    return dataclasses.replace(entry, inputs=inputs)


def test_wiring_is_that_of_an_honest_recording(recorded, wired) -> None:
    entries = recorded.honest().entries
    assert len(entries) == len(wired.operators)
    results = 0
    for entry, operator in zip(entries, wired.operators, strict=True):
        assert (entry.name, entry.iterations) == (operator.name, operator.iterations)
        for digest, source in zip(entry.inputs, operator.operands, strict=True):
            if isinstance(source, Result):
                results += 1
                assert entries[source.index].outputs[source.place] == digest
            if isinstance(source, Known):
                assert source.digest == digest
    assert results > 50
    assert all(isinstance(source, Result) for source in wired.results)


def test_honest_recording_contradicts_nothing(recorded) -> None:
    assert refute_wiring(recorded.asked(recorded.honest())) is None


@pytest.mark.parametrize("kind", [Result, Known, Argument])
def test_operand_that_is_not_what_feeds_it_is_refuted(recorded, wired, kind) -> None:
    entries = list(recorded.honest().entries)
    index, operand = first_of(wired, kind)
    if kind is Argument:
        index, operand = next(
            (i, k)
            for i, operator in enumerate(wired.operators)
            for k, source in enumerate(operator.operands)
            if isinstance(source, Argument)
            and recorded.stored.signature.inputs[source.place].path[:2] == ("state", "parameters")
        )
    entries[index] = with_operand(entries[index], operand, OTHER)
    file = refute_wiring(recorded.asked(recorded.changed(entries)))
    assert file is not None and file.kind == "operand"
    found = judged(file)
    assert found.refuted and f"operand {operand} is not the" in found.words
    assert len(file.entries) == (2 if kind is Result else 1)
    assert len(file.to_bytes()) < 1 << 20


@pytest.mark.parametrize("change", ["name", "iterations", "inputs", "cut", "swap"])
def test_entries_in_another_order_are_refuted(recorded, change) -> None:
    entries = list(recorded.honest().entries)
    if change == "cut":
        entries.pop()
    elif change == "swap":
        entries[7], entries[8] = entries[8], entries[7]
    else:
        other = {"name": "main/0", "iterations": (3,), "inputs": ()}[change]
        entries[7] = dataclasses.replace(entries[7], **{change: other})
    file = refute_wiring(recorded.asked(recorded.changed(entries)))
    assert file is not None and file.kind == "order"
    assert judged(file).refuted


def test_no_pair_of_entries_of_an_honest_recording_is_refuted(recorded, wired) -> None:
    """Whatever a stranger claims of it: other producers, operands, committed tensors."""
    recording, draw = recorded.honest(), np.random.default_rng(0)
    asked, size = recorded.asked(recording), len(wired.operators)
    outcomes = []
    for _ in range(60):
        index = int(draw.integers(size))
        operand = int(draw.integers(3))
        sources = wired.operators[index].operands
        others = [int(draw.integers(size))]
        if operand < len(sources) and isinstance(sources[operand], Result):
            others += [sources[operand].index]
        for other in others:
            for indices in ((index,), (index, other)):
                kind = str(draw.choice(["operand", "order"]))
                file = _file(asked, kind, *indices, operand=operand)
                try:
                    outcomes.append(judge_recording(file).refuted)
                except AttestError:
                    outcomes.append(None)
        if len(outcomes) > 40:
            break
    assert True not in outcomes
    assert outcomes.count(False) > 5 and outcomes.count(None) > 5


@pytest.fixture(scope="module")
def scaled(cheat, recorded_by, trainers):
    """Return a run that commits another gradient than its device gives, and the recording."""

    class Scaled(trainers.Fault):
        def gradient(self, outputs, step):
            if step != trainers.BAD:
                return outputs
            larger = jax.tree.map(lambda x: x * np.float32(1.01), outputs["gradient"])
            return {**outputs, "gradient": larger}

    fault = Scaled()
    return recorded_by(cheat(fault), fault)


@pytest.fixture(scope="module")
def end_file(scaled, trainers) -> RecordingRefutation:
    row = scaled.opened.signed.row
    committed = Committed(
        trainers.BAD, "blake3", row.gradient_root, scaled.opened.outputs, TOLERANCE
    )
    made = refute_end(scaled.asked(scaled.honest()), committed)
    assert made is not None
    return made


def test_recording_that_ends_elsewhere_is_refuted(end_file) -> None:
    found = judged(end_file)
    assert found.refuted and "another gradient than the row commits" in found.words
    assert len(end_file.to_bytes()) < 1 << 20


def test_end_of_a_gradient_that_is_rounding_alone_refutes_nothing(
    end_file, scaled, trainers, monkeypatch
) -> None:
    path = end_file.committed.header.path
    assert path[0] == "gradient"
    name, row = path_text(path[1:]), scaled.opened.signed.row
    names = frozenset(path_text(p) for p in leaves_of(scaled.opened.outputs["gradient"]))
    committed = Committed(
        trainers.BAD, "blake3", row.gradient_root, scaled.opened.outputs, TOLERANCE, names
    )
    assert refute_end(scaled.asked(scaled.honest()), committed) is None
    named, end = property(lambda contract: (name,)), recording_refutation._end

    def end_by_such_a_contract(*arguments):
        with monkeypatch.context() as patch:  # after its id was checked
            patch.setattr(Numerics, "null_gradients", named)
            return end(*arguments)

    monkeypatch.setattr(recording_refutation, "_end", end_by_such_a_contract)
    with pytest.raises(RefusedError, match="all of it is rounding"):
        judged(end_file)


def test_honest_end_is_no_file(recorded, trainers) -> None:
    row = recorded.opened.signed.row
    committed = Committed(
        trainers.BAD, "blake3", row.gradient_root, recorded.opened.outputs, TOLERANCE
    )
    assert refute_end(recorded.asked(recorded.honest()), committed) is None


def test_other_ends_entries_and_tensors_are_refused(end_file, recorded, scaled, wired) -> None:
    def change(**parts):
        return dataclasses.replace(end_file, **parts)

    committed, value = end_file.committed, end_file.values[0]
    recording = scaled.honest()
    elsewhere = _file(scaled.asked(recording), "end", 3)
    honest = recorded.asked(recorded.honest()).signed
    grown = dataclasses.replace(value, data=bytes(len(value.data)))
    wrong = [
        change(entries=elsewhere.entries),
        change(entries=(*end_file.entries, *end_file.entries)),
        change(entries=()),
        change(values=end_file.values[:1]),
        change(values=(grown, end_file.values[1])),
        change(values=(value, grown)),
        change(values=(end_file.values[1], value)),
        change(committed=None),
        change(committed=dataclasses.replace(committed, top=bytes(32))),
        change(committed=dataclasses.replace(committed, set_index=committed.set_index ^ 1)),
        change(committed=dataclasses.replace(committed, set_siblings=())),
        change(before=scaled.opened.previous),
        change(signed=honest),
        change(signed=dataclasses.replace(end_file.signed, recording=honest.recording)),
        change(signed=dataclasses.replace(end_file.signed, row=honest.row)),
        change(signature=b"{}"),
        change(artifact=b"x"),
        change(kind="operand"),
        change(kind="order"),
    ]
    for number, file in enumerate(wrong):
        with pytest.raises((AttestError, AnhError)):
            found = judged(file)
            pytest.fail(f"variant {number}: {found.words}")


def test_argument_is_held_to_the_committed_state_alone(recorded, wired) -> None:
    entries = list(recorded.honest().entries)
    signature = recorded.stored.signature
    index, operand, place = next(
        (i, k, source.place)
        for i, operator in enumerate(wired.operators)
        for k, source in enumerate(operator.operands)
        if isinstance(source, Argument) and signature.inputs[source.place].path[0] == "examples"
    )
    assert signature.inputs[place].path[0] == "examples"
    entries[index] = with_operand(entries[index], operand, OTHER)
    asked = recorded.asked(recorded.changed(entries))
    # The batch is bound by no file: anybody could hand over another one.
    with pytest.raises(RefusedError, match="no tensor of the state"):
        file = _file(asked, "operand", index, operand=operand)
        judge_recording(dataclasses.replace(file, values=(next(iter(asked_values(recorded))),)))


def test_entry_that_is_not_under_the_signed_root_refutes_nothing(recorded, wired) -> None:
    index, operand = first_of(wired, Result)
    source = wired.operators[index].operands[operand]
    asked = recorded.asked(recorded.honest())
    file = _file(asked, "operand", index, source.index, operand=operand)
    consumer, producer = file.entries
    lied = dataclasses.replace(consumer, entry=with_operand(consumer.entry, operand, OTHER))
    moved = dataclasses.replace(consumer, index=consumer.index + 1)
    for entries in ((lied, producer), (moved, producer), (consumer, consumer)):
        with pytest.raises(RefusedError):
            judge_recording(dataclasses.replace(file, entries=entries))


def test_state_that_no_row_commits_refutes_no_operand(recorded, wired) -> None:
    """A challenger may hash any state of his own, and may forge the row that commits it."""
    signature, before = recorded.stored.signature, recorded.opened.before
    index, operand, place = next(
        (i, k, source.place)
        for i, operator in enumerate(wired.operators)
        for k, source in enumerate(operator.operands)
        if isinstance(source, Argument)
        and signature.inputs[source.place].path[:2] == ("state", "parameters")
    )
    own = jax.tree.map(lambda x: x * np.float32(2), before["parameters"])
    asked = dataclasses.replace(
        recorded.asked(recorded.honest()), before={**before, "parameters": own}
    )
    file = _argument_file(asked, index, operand, place)
    with pytest.raises(RefusedError, match="does not lead to the state root"):
        judge_recording(file)
    root = tree_digest(asked.before, step=asked.previous.step).root.hex()
    forged = dataclasses.replace(asked.previous, state_root=root)
    with pytest.raises(RefusedError, match="is not the row that this one follows"):
        judge_recording(dataclasses.replace(file, before=forged))


def asked_values(recorded):
    recording = recorded.honest()
    for entry in recording.entries:
        for digest in entry.outputs:
            value = recording.value(digest)
            if value is not None:
                yield value


def test_no_changed_byte_makes_a_file_of_an_honest_recording_refute(recorded, wired) -> None:
    index, operand = first_of(wired, Result)
    source = wired.operators[index].operands[operand]
    asked = recorded.asked(recorded.honest())
    data = _file(asked, "operand", index, source.index, operand=operand).to_bytes()
    assert not judge_recording(RecordingRefutation.from_bytes(data)).refuted
    draw = np.random.default_rng(2)
    for place in draw.integers(0, len(data), 120):
        changed = bytearray(data)
        changed[place] ^= 1 << int(draw.integers(0, 7))
        try:
            assert not judge_recording(RecordingRefutation.from_bytes(bytes(changed))).refuted
        except (AttestError, AnhError):
            continue
