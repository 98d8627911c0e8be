"""Inside a step: a faulty operator is named with its iteration, and honest rounding never is."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.audit.operator import Committed, Disputed, dispute, end_tolerance
from anh_jax.audit.recording import (
    FolderRecording,
    RecordingWriter,
    array_of,
    gradient_inputs,
    record,
)
from anh_jax.audit.recording_refutation import misplaced
from anh_jax.audit.wiring import Known, Result, wiring
from anh_jax.digest.host import gradient_digest
from anh_jax.errors import AnhError, ProgramError
from anh_jax.experiment_choices import LanguageModel
from anh_jax.experiment_optimizers import Sgd
from anh_jax.models.language_model import language_model
from anh_jax.models.losses import next_token_cross_entropy
from anh_jax.program.export import export_program
from anh_jax.program.interpret import read_stored
from anh_jax.program.interpreter.naming import named_operation
from anh_jax.program.programs import program_sources
from anh_jax.training.optimizer import build_optimizer
from attest.keys import PrivateKey
from attest.numerics_class import CLASSES

F32 = CLASSES["f32"]
KEY = PrivateKey(bytes(32))
LENGTH, VOCABULARY = 8, 32


@dataclasses.dataclass
class Step:
    """A scanned model's gradient at one state and batch, and what an honest run commits of it."""

    program: Any
    inputs: Any
    committed: Committed
    folder: Path
    made: int = 0
    outputs: Any = None
    honest_outputs: Any = None

    def record(self, fault=None, **options: Any) -> FolderRecording:
        """Record the step anew; `outputs` are then what that evaluation gave."""
        self.made += 1
        folder = self.folder / str(self.made)
        with RecordingWriter(folder, **options) as writer:
            self.outputs = record(self.program, self.inputs, writer, fault=fault)
            writer.finish(KEY, run="a" * 64, step=1, row="b" * 64, program="c" * 64)
        return FolderRecording(folder)

    def honest(self) -> FolderRecording:
        """Return the recording of an honest device."""
        return FolderRecording(self.folder / "1")

    def follow(self, recording: FolderRecording, **changes: Any) -> Disputed:
        committed = dataclasses.replace(self.committed, **changes)
        return dispute(self.program, self.inputs, recording, committed, rules=F32)


@pytest.fixture(scope="module")
def step(tmp_path_factory) -> Step:
    """Return a tiny language model's step, its layers in a loop."""
    choice = LanguageModel(
        vocabulary=VOCABULARY,
        sequence_length=LENGTH,
        width=8,
        depth=2,
        heads=2,
        mlp_width=16,
    )
    model = language_model(choice)
    fields = {"tokens": jax.ShapeDtypeStruct((LENGTH + 1,), jnp.int32)}
    sources = program_sources(
        model, next_token_cross_entropy(), build_optimizer(Sgd(learning_rate=0.1)), fields
    )
    source = sources["gradient"]
    stored = export_program(
        "gradient", source.function, source.arguments, output_specs=source.output_specs
    )
    key = jax.random.key(0, impl="threefry2x32")
    state = {"parameters": model.init(key), "step": jnp.zeros((), jnp.uint32), "key": key}
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (4, LENGTH + 1)).astype(np.int32)
    pieces = [
        {
            "tokens": tokens[rows],
            "id": np.arange(4, dtype=np.uint32)[rows],
            "weight": np.ones(2, np.float32),
        }
        for rows in (slice(0, 2), slice(2, 4))
    ]
    program, inputs = read_stored(stored), gradient_inputs(state, pieces)
    folder = tmp_path_factory.mktemp("recordings")
    made = Step(program, inputs, Committed(1, "blake3", "", None, 1e-6), folder)
    made.record()
    root = gradient_digest(made.outputs, step=1).root.hex()
    committed = dataclasses.replace(made.committed, root=root)
    return dataclasses.replace(made, committed=committed, honest_outputs=made.outputs)


def faulty(kind: str, iterations: tuple[int, ...], relative: float, skipped: int = 0):
    """Return a device that computes one operator of a kind in one iteration a little wrong."""
    named: list[str] = []
    left = [skipped]

    def fault(visit, inputs, default):
        outputs = default(*inputs)
        found = visit.operation.name == kind and tuple(map(int, visit.iterations)) == iterations
        if not found or named:
            return outputs
        if left[0]:
            left[0] -= 1
            return outputs
        named.append(visit.name)
        (output,) = outputs
        worst = jnp.argmax(jnp.abs(output).ravel())
        moved = output.ravel().at[worst].multiply(np.float32(1 + relative)).reshape(output.shape)
        return (moved,)

    return fault, named


def test_honest_recording_holds_bit_for_bit(step) -> None:
    found = step.follow(step.honest())
    assert found.verdict == "holds" and found.entry is None
    assert found.compared > 500 and found.rounded == 0


@pytest.mark.parametrize(
    "kind",
    [
        "stablehlo.dot_general",
        pytest.param("stablehlo.reduce", marks=pytest.mark.full),
        pytest.param("stablehlo.exponential", marks=pytest.mark.full),
    ],
)
def test_faulty_operator_in_a_loop_is_named_with_its_iteration(kind, step) -> None:
    fault, named = faulty(kind, (1,), 2.0**-12)
    found = step.follow(step.record(fault))
    assert named and found.verdict == "refuted"
    assert (found.entry.name, found.entry.iterations) == (named[0], (1,))
    assert ".do[*]" in found.entry.name and found.leaf.operation == kind
    assert found.leaf.excess.value > 1


def test_fault_of_an_exact_operator_is_refuted_by_its_last_bit(step) -> None:
    fault, named = faulty("stablehlo.transpose", (0,), 2.0**-23)
    found = step.follow(step.record(fault))
    assert found.verdict == "refuted" and found.entry.name == named[0]
    assert found.leaf.excess.value == np.inf


@pytest.mark.full
def test_rounding_within_the_bound_is_followed_to_the_end(step) -> None:
    changed: list[str] = []

    def rounded(visit, inputs, default):
        outputs = default(*inputs)
        if visit.operation.name != "stablehlo.dot_general" or visit.iterations != (1,):
            return outputs
        changed.append(visit.name)
        return (outputs[0] * np.float32(1 + 2.0**-23),)

    found = step.follow(step.record(rounded))
    # The last bits differ from there on, and no operator is refuted for it.
    assert found.verdict == "undecided" and "not at hand" in found.words
    assert found.rounded == len(changed) > 5


def reordered(visit, inputs, default):
    """Stand in for a device that sums every matrix product and reduction in two halves."""
    if visit.operation.name != "stablehlo.dot_general":
        return default(*inputs)
    numbers = visit.operation.attributes["dot_dimension_numbers"]
    left, right = inputs
    axis = numbers.lhs_contracting[0]
    places = jnp.arange(left.shape[axis]).reshape(
        [-1 if i == axis else 1 for i in range(left.ndim)]
    )
    parts = []
    for half in (0, 1):
        (part,) = default(jnp.where(places % 2 == half, left, 0), right)
        parts.append(part)
    return (parts[0] + parts[1],)


def test_other_order_of_summation_refutes_no_operator(step) -> None:
    recording = step.record(reordered)
    assert gradient_digest(step.outputs, step=1).root.hex() != step.committed.root
    # Committed is what honest devices gave in another order: within the tolerance, not its bits.
    found = step.follow(recording, outputs=step.honest_outputs)
    assert found.verdict == "holds" and "within rounding" in found.words
    assert found.rounded > 10


def test_recording_that_ends_in_another_gradient_is_told(step) -> None:
    other = jax.tree.map(lambda x: x * np.float32(1.001), step.honest_outputs)
    root = gradient_digest(other, step=1).root.hex()
    found = step.follow(step.honest(), outputs=other, root=root)
    assert found.verdict == "elsewhere" and "another gradient" in found.words


def test_recording_at_other_operands_contradicts_the_run(step) -> None:
    recording = step.honest()
    state, examples, key = step.inputs.pieces[0]
    moved = {**examples, "tokens": examples["tokens"] ^ 1}
    inputs = dataclasses.replace(step.inputs, pieces=((state, moved, key), *step.inputs.pieces[1:]))
    found = dispute(step.program, inputs, recording, step.committed, rules=F32)
    assert found.verdict == "contradicts" and "operand" in found.words


def test_wiring_through_a_loop_is_that_of_an_honest_recording(step) -> None:
    """What one iteration gives feeds the next: a file about it must not refute honest runs."""
    wired, entries = wiring(step.program), step.honest().entries
    size, across = len(wired.operators), 0
    assert len(entries) == 2 * size  # two microbatches
    for index, entry in enumerate(entries):
        operator = wired.operators[index % size]
        assert not misplaced(operator, entry, index // size)
        for digest, source in zip(entry.inputs, operator.operands, strict=True):
            if isinstance(source, Known):
                assert source.digest == digest, entry.text
            if isinstance(source, Result):
                feeding = entries[index // size * size + source.index]
                assert feeding.outputs[source.place] == digest, (entry.text, feeding.text)
                across += feeding.iterations < entry.iterations and feeding.iterations != ()
    assert across > 0


def test_recorded_operand_that_is_not_the_recorded_result_contradicts(step) -> None:
    recording = step.honest()
    entries = list(recording.entries)
    place = next(i for i, e in enumerate(entries) if ".do[*]" in e.name)
    lied = dataclasses.replace(entries[place], inputs=("0" * 64, *entries[place].inputs[1:]))
    recording.entries = (*entries[:place], lied, *entries[place + 1 :])
    found = step.follow(recording)
    assert found.verdict == "contradicts" and found.entry == lied


def test_entry_under_another_name_or_iteration_contradicts(step) -> None:
    recording = step.honest()
    first, *rest = recording.entries
    for change in ({"name": "main/0"}, {"iterations": (7,)}, {"piece": 1}):
        recording.entries = (dataclasses.replace(first, **change), *rest)
        found = step.follow(recording)
        assert found.verdict == "contradicts" and "where the program evaluates" in found.words


def test_recording_that_is_cut_off_or_too_long_contradicts(step) -> None:
    recording = step.honest()
    whole = recording.entries
    for entries in (whole[:90], (*whole, whole[-1]), (*whole[:9], *whole[10:])):
        recording.entries = entries
        assert step.follow(recording).verdict == "contradicts"


def test_values_that_are_not_kept_are_asked_for_by_name(step) -> None:
    fault, named = faulty("stablehlo.dot_general", (1,), 2.0**-12)
    found = step.follow(step.record(fault, limit=0))
    assert found.verdict == "opening needed" and found.entry.name == named[0]
    again, _ = faulty("stablehlo.dot_general", (1,), 2.0**-12)
    found = step.follow(step.record(again, limit=0, wanted=(named[0],)))
    assert found.verdict == "refuted" and found.entry.name == named[0]


@pytest.mark.full
def test_operands_and_results_of_a_refuted_operator_are_the_recorded_ones(step) -> None:
    fault, _ = faulty("stablehlo.dot_general", (0,), 2.0**-10)
    recording = step.record(fault)
    leaf = step.follow(recording).leaf
    assert recording.entries[leaf.index] == leaf.entry
    assert tuple(v.digest() for v in leaf.inputs) == leaf.entry.inputs
    assert tuple(v.digest() for v in leaf.outputs) == leaf.entry.outputs
    assert (
        np.float32(leaf.excess.committed) == array_of(leaf.outputs[0]).ravel()[leaf.excess.element]
    )


def test_changed_entries_are_no_recording(step) -> None:
    recording = step.record()
    path = recording.folder / "entries.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    changed = {**json.loads(first), "piece": 1}
    data = json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()
    path.write_bytes(data + b"\n" + rest)
    with pytest.raises(AnhError, match="not those that recording.json commits"):
        FolderRecording(recording.folder)


def test_names_lead_back_to_their_operators(step) -> None:
    program, seen = step.program.program, {}

    def hook(visit, inputs, default):
        seen[visit.name] = visit.operation
        return default(*inputs)

    step.program(*step.inputs.pieces[0], around=hook, loops="python")
    assert any(".do[*]" in name and ">" in name for name in seen)
    for name, operation in seen.items():
        assert named_operation(program, name) is operation
    inside = next(name for name in seen if ".do[*]" in name)
    odd = (
        "",
        "main",
        "main/9999",
        "main/0/1",
        "other/1",
        inside + "/1",
        inside.replace("[*]", "[1]"),
    )
    for name in odd:
        with pytest.raises(ProgramError, match="has no operator"):
            named_operation(program, name)


def test_inflated_bound_of_a_row_excuses_no_other_gradient() -> None:
    rules = F32
    assert end_tolerance(rules, None) == rules.cap
    assert end_tolerance(rules, 1e30) == rules.cap
    assert end_tolerance(rules, 1e-5) == 1e-5
    # Below the floor an honest trainer would refute himself.
    assert end_tolerance(rules, 0.0) == rules.c * 2.0**-24
