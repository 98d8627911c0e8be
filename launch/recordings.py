"""Records a step's gradient or update operator by operator, and follows such recordings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anh_jax.attested_run import run_id
from anh_jax.audit.operator import Committed, Disputed, dispute, end_tolerance
from anh_jax.audit.recording import (
    FolderRecording,
    RecordingWriter,
    StepInputs,
    gradient_inputs,
    record,
    update_program_inputs,
)
from anh_jax.audit.refutation import refute, rules_of, signed_parts
from anh_jax.audit.refuting_recordings import Questioned, refute_end, refute_wiring
from anh_jax.audit.replay import Reached
from anh_jax.audit.step_refutation import update_inputs
from anh_jax.audit.update_end import CommittedUpdate
from anh_jax.errors import AnhError
from anh_jax.program.interpret import read_stored
from anh_jax.program.signature import StoredProgram
from anh_jax.run_directory import write_atomically
from anh_jax.training.executor import Tree
from attest.canonical import parse_hex_float
from attest.errors import FormatError
from attest.recording import Recording
from attest.refutation import verify_signed
from launch.bisecting import Opened, opened_run
from launch.errors import CommandError
from launch.step_refuting import Written

Part = Literal["gradient", "update"]
PARTS: tuple[Part, ...] = ("gradient", "update")


@dataclass(frozen=True)
class RecordedStep:
    """A recording that was written: what the run key signed, and where."""

    said: Recording
    folder: Path


@dataclass(frozen=True)
class Followed:
    """A recording that was followed; `written` is the refutation, where one was asked for."""

    step: int
    disputed: Disputed
    written: Written | None


@dataclass(frozen=True)
class _Step:
    """A step of an opened run, and the program of it that is recorded."""

    opened: Opened
    before: Reached
    part: Part

    @property
    def stored(self) -> StoredProgram:
        return self.opened.search.benches.materials.programs.stored[self.part]

    @property
    def number(self) -> int:
        return self.before.step + 1


def record_step(
    directory: Path, step: int, folder: Path, *, wanted: tuple[str, ...] = (), part: Part
) -> RecordedStep:
    """Evaluate one of a step's programs operator by operator; sign and write the recording."""
    with opened_run(directory) as opened:
        found = _Step(opened, _before(opened, step), part)
        run, row = opened.run, opened.search.rows[step - 1]
        named = {"run": run_id(run), "row": row.row_hash.hex(), "program": found.stored.id}
        with RecordingWriter(folder, wanted=wanted) as writer:
            record(read_stored(found.stored), _inputs(found), writer)
            said = writer.finish(run.key("run"), step=step, **named)
        return RecordedStep(said, folder)


def follow_recording(
    directory: Path, folder: Path, out: Path | None, states: str | None = None
) -> Followed:
    """Follow a recording of one step of a run; write the refutation of what it shows to be wrong.

    Raises CommandError where the recording is not of this run, AttestError where it is not signed.
    """
    recording = FolderRecording(folder)
    with opened_run(directory, states) as opened:
        step, rows = recording.said.step, opened.search.rows
        if recording.said.run != run_id(opened.run) or step > len(rows):
            raise CommandError(f"{folder}: is a recording of another run")
        verify_signed(signed_parts(opened.run, rows[step - 1], recording.envelope))
        programs = opened.search.benches.materials.programs
        named: dict[str, Part] = {programs.stored[name].id: name for name in PARTS}
        part = named.get(recording.said.program)
        if part is None:
            raise CommandError(f"{folder}: records neither the gradient nor the update")
        found = _Step(opened, _before(opened, step), part)
        committed = _gradient(found) if part == "gradient" else _state(found)
        contract = opened.search.benches.materials.contract
        rules = rules_of(contract, found.stored.id)
        program = read_stored(found.stored)
        disputed = dispute(program, _inputs(found), recording, committed, rules=rules)
        if out is None:
            return Followed(step, disputed, None)
        return Followed(step, disputed, _written(found, recording, disputed, committed, out))


def _written(
    found: _Step,
    recording: FolderRecording,
    disputed: Disputed,
    committed: Committed | CommittedUpdate,
    out: Path,
) -> Written | None:
    """Write the file that shows what was found, if a third party could check it."""
    rows, run = found.opened.search.rows, found.opened.run
    signed = signed_parts(run, rows[found.number - 1], recording.envelope)
    previous = rows[found.number - 2].row if found.number > 1 else None
    asked = Questioned(signed, found.stored, recording, previous, found.before.state)
    try:
        if disputed.leaf is not None:
            data = refute(signed, found.stored, recording, disputed.leaf).to_bytes()
        elif disputed.verdict == "contradicts":
            made = refute_wiring(asked)
            if made is None:
                return Written(None, "its batch is another, which no file shows")
            data = made.to_bytes()
        elif disputed.verdict == "elsewhere" and isinstance(committed, Committed):
            made = refute_end(asked, committed)
            if made is None:
                return Written(None, "no operator of the program gives the tensor it ends in")
            data = made.to_bytes()
        else:
            return None
    except (AnhError, FormatError) as error:
        return Written(None, str(error))
    write_atomically(out, data)
    return Written(out)


def _before(opened: Opened, step: int) -> Reached:
    search = opened.search
    if not 1 <= step <= len(search.rows):
        raise CommandError(f"step {step}: the run has steps 1 to {len(search.rows)}")
    before = search.committed(step - 1)
    if not isinstance(before, Reached):
        raise CommandError(f"the state before step {step} is not at hand: {before.words}")
    return before


def _inputs(found: _Step) -> StepInputs:
    search, step = found.opened.search, found.number
    row = search.rows[step - 1]
    bench = search.benches.of(search.transcript.attempt_of(row))
    if found.part == "gradient":
        return gradient_inputs(found.before.state, bench.batch(step).pieces)
    outputs = _outputs(found)
    if outputs is None:
        raise CommandError(f"the committed gradient of step {step} is not at hand")
    table = search.benches.materials.constants
    inputs = update_inputs(row.row, table, found.before.state, outputs["gradient"])
    return update_program_inputs(inputs, step, table.names)


def _outputs(found: _Step) -> Tree | None:
    search = found.opened.search
    bench = search.benches.of(search.transcript.attempt_of(search.rows[found.number - 1]))
    return search.gradient(found.before) or found.opened.kept.outputs(found.number, bench)


def _gradient(found: _Step) -> Committed:
    search, row = found.opened.search, found.opened.search.rows[found.number - 1].row
    declared = None if row.bound is None else parse_hex_float(row.bound)
    numerics = search.benches.materials.contract.numerics
    return Committed(
        step=found.number,
        alg=search.transcript.genesis.alg,
        root=row.gradient_root,
        outputs=_outputs(found),
        tolerance=end_tolerance(numerics.rules, declared),
        null_gradients=frozenset(numerics.null_gradients),
    )


def _state(found: _Step) -> CommittedUpdate:
    search, step = found.opened.search, found.number
    signed = search.rows[step - 1]
    bench = search.benches.of(search.transcript.attempt_of(signed))
    after = found.opened.kept.state(step, bench)
    if after is None and isinstance(reached := search.committed(step), Reached):
        after = reached.state
    return CommittedUpdate(
        step=step,
        alg=search.transcript.genesis.alg,
        root=signed.row.state_root or "",
        before=found.before.state,
        after=after,
        rules=search.benches.materials.contract.numerics.rules,
    )
