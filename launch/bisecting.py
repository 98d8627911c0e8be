"""Carries out `anh bisect`: searches steps, parts two runs, records a step, follows a recording."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from anh_jax.attested_run import run_id
from anh_jax.audit.bisect import (
    FirstStep,
    Looked,
    RunSearch,
    Searched,
    Stretch,
    most_looks,
)
from anh_jax.audit.kept_states import KeptStates
from anh_jax.audit.operator import Committed, Disputed, dispute, end_tolerance
from anh_jax.audit.parting import Parted, part
from anh_jax.audit.recording import (
    FolderRecording,
    GradientInputs,
    RecordingWriter,
    gradient_inputs,
    record,
)
from anh_jax.audit.refutation import refute, signed_parts
from anh_jax.audit.replay import Reached
from anh_jax.audit.results import StepResult
from anh_jax.audit.scan import Scanned, StepScan
from anh_jax.audit.transcript import Transcript
from anh_jax.program.interpret import read_stored
from anh_jax.run_directory import RunDirectory, write_atomically
from anh_jax.training.checkpoints import TrainingCheckpoints
from anh_jax.training.retained_steps import RetainedSteps
from anh_jax.workbench import MeshSizes, read_materials
from attest.canonical import parse_hex_float
from attest.contract import Contract
from attest.recording import Recording
from attest.refutation import verify_signed
from launch.announcement import begun_run
from launch.errors import CommandError
from launch.logged_run import read_announced, read_closed_run
from launch.logs import check_log, open_log_of
from launch.output import progress
from launch.run_difference import Difference, compare
from launch.state_sources import open_source
from launch.step_refuting import (
    Disputable,
    Written,
    write_start_refutation,
    write_step_refutation,
)
from launch.virtual_devices import give_devices

# Reading keeps everything: a manager that may keep fewer would remove the others.
_KEEP_ALL = 1 << 30
_ALL = Stretch(0, 0)
Opened = Disputable


@dataclass(frozen=True)
class RecordedStep:
    """A recording that was written: what the run key signed, and where."""

    said: Recording
    folder: Path


@dataclass(frozen=True)
class Followed:
    """A recording that was followed; `file` is the refutation, where there is one."""

    step: int
    disputed: Disputed
    file: Path | None


@dataclass(frozen=True)
class WrongStart:
    """A run whose state 0 is not what its init gives."""

    words: str


@dataclass(frozen=True)
class SearchedRun:
    """What a search of a run found, and the refutation file, where one was asked for."""

    found: Searched | Scanned | WrongStart
    written: Written | None = None


@dataclass(frozen=True)
class Place:
    """Where to search: a run, a stretch of it or all, and who shows states, if not its folder."""

    directory: Path
    stretch: Stretch | None = None
    states: str | None = None


def search_run(place: Place, out: Path | None = None) -> SearchedRun:
    """Find the first step of a run that does not follow from the one before.

    On the trainer's own execution class by halving, elsewhere by weighing each step that is shown.
    Writes the refutation to `out` where one is asked for and what it takes is at hand.
    """
    with _opened(place.directory, place.states) as opened:
        search = opened.search
        if not (place.stretch or _ALL).start and search.first is None and _exact(search):
            words = "state 0 is not what init gives, whose bits are the same on every machine"
            written = None if out is None else write_start_refutation(opened, out)
            return SearchedRun(WrongStart(words), written)
        found = _halved(opened, place) if search.comparable else _scanned(opened, place)
        if out is None or found.first is None or found.first.result.outcome != "refuted":
            return SearchedRun(found)
        return SearchedRun(found, write_step_refutation(opened, found.first, out))


def _exact(search: RunSearch) -> bool:
    return search.benches.materials.programs.init_kind == "exact" and not search.benches.native


def _scanned(opened: Opened, place: Place) -> Scanned:
    stretch = opened.search.within(place.stretch)
    with progress(f"scan {place.directory.name}", total=stretch.stop - stretch.start) as bar:

        def told(result: StepResult) -> None:
            bar.reached(result.step - stretch.start, {"step": result.step})

        return StepScan(opened.search, opened.kept).scan(stretch, told)


def _halved(opened: Opened, place: Place) -> Searched:
    directory, stretch = place.directory, place.stretch
    total = len(opened.search.rows) if stretch is None else stretch.stop - stretch.start
    with progress(f"bisect {directory.name}", total=most_looks(max(total, 1))) as bar:
        looks = 0

        def look(looked: Looked) -> None:
            nonlocal looks
            looks += 1
            where = looked.stretch
            bar.reached(looks, {"from": where.start, "to": where.stop})

        return opened.search.search(stretch, look)


def compare_runs(first: Path, second: Path) -> Parted | Difference | None:
    """Part two runs of one contract; of others say how they differ. None where none differs."""
    directories = (RunDirectory.open(first), RunDirectory.open(second))
    contracts = [run.contract_bytes() for run in directories]
    if contracts[0] != contracts[1]:
        return compare(first, second)
    with _opened(first) as one, _opened(second) as two:
        return part(one.search, two.search)


def record_step(directory: Path, step: int, folder: Path, wanted: tuple[str, ...]) -> RecordedStep:
    """Evaluate a step's gradient operator by operator; sign and write the recording."""
    with _opened(directory) as opened:
        inputs = _inputs(opened, _before(opened, step))
        run, row = opened.run, opened.search.rows[step - 1]
        stored = opened.search.benches.materials.programs.stored["gradient"]
        named = {"run": run_id(run), "row": row.row_hash.hex(), "program": stored.id}
        with RecordingWriter(folder, wanted=wanted) as writer:
            record(read_stored(stored), inputs, writer)
            said = writer.finish(run.key("run"), step=step, **named)
        return RecordedStep(said, folder)


def follow_recording(directory: Path, folder: Path, out: Path | None) -> Followed:
    """Follow a recording of one step of a run; write the refutation where it refutes an operator.

    Raises CommandError where the recording is not of this run, AttestError where it is not signed.
    """
    recording = FolderRecording(folder)
    with _opened(directory) as opened:
        step, rows = recording.said.step, opened.search.rows
        if recording.said.run != run_id(opened.run) or step > len(rows):
            raise CommandError(f"{folder}: is a recording of another run")
        signed = signed_parts(opened.run, rows[step - 1], recording.envelope)
        verify_signed(signed)
        materials = opened.search.benches.materials
        stored = materials.programs.stored["gradient"]
        if recording.said.program != stored.id:
            raise CommandError(f"{folder}: records a program other than the gradient")
        before = _before(opened, step)
        found = dispute(
            read_stored(stored),
            _inputs(opened, before),
            recording,
            _committed(opened, before, materials.contract),
            rules=materials.contract.numerics.rules,
        )
        if found.leaf is None or out is None:
            return Followed(step, found, None)
        write_atomically(out, refute(signed, stored, recording, found.leaf).to_bytes())
        return Followed(step, found, out)


def worst(steps: tuple[FirstStep, ...]) -> str:
    """Return the gravest outcome among judged steps."""
    outcomes = [found.result.outcome for found in steps]
    return next((o for o in ("refuted", "withheld", "unattestable") if o in outcomes), "pass")


def _before(opened: Opened, step: int) -> Reached:
    search = opened.search
    if not 1 <= step <= len(search.rows):
        raise CommandError(f"step {step}: the run has steps 1 to {len(search.rows)}")
    before = search.committed(step - 1)
    if not isinstance(before, Reached):
        raise CommandError(f"the state before step {step} is not at hand: {before.words}")
    return before


def _inputs(opened: Opened, before: Reached) -> GradientInputs:
    search, step = opened.search, before.step + 1
    bench = search.benches.of(search.transcript.attempt_of(search.rows[step - 1]))
    return gradient_inputs(before.state, bench.batch(step).pieces)


def _committed(opened: Opened, before: Reached, contract: Contract) -> Committed:
    search, step = opened.search, before.step + 1
    signed = search.rows[step - 1]
    bench = search.benches.of(search.transcript.attempt_of(signed))
    bound = signed.row.bound
    return Committed(
        step=step,
        alg=search.transcript.genesis.alg,
        root=signed.row.gradient_root,
        outputs=search.gradient(before) or opened.kept.outputs(step, bench),
        tolerance=end_tolerance(
            contract.numerics.rules, None if bound is None else parse_hex_float(bound)
        ),
    )


@contextmanager
def _opened(directory: Path, states: str | None = None) -> Generator[Opened]:
    run = begun_run(directory)
    transcript = _transcript(directory, run)
    attempts = (attempt.mesh for attempt in transcript.attempts.values())
    give_devices([MeshSizes(data=a.data, fsdp=a.fsdp, tensor=a.tensor) for a in attempts])
    with ExitStack() as stack:
        if states is not None:
            source = stack.enter_context(open_source(states, transcript))
            kept = KeptStates(transcript, source=source)
        else:
            checkpoints = TrainingCheckpoints(run.checkpoints, keep=_KEEP_ALL)
            stack.callback(checkpoints.close)
            kept = KeptStates(transcript, checkpoints, RetainedSteps(run.retained))
        yield Opened(run, kept, RunSearch(transcript, read_materials(run), kept))


def _transcript(directory: Path, run: RunDirectory) -> Transcript:
    with open_log_of(directory) as log:
        check_log(directory)
        if read_announced(log, run_id(run)).final_index is None:
            raise CommandError(f"{directory}: the run is not final; bisection comes after its end")
        return read_closed_run(log, run_id(run), run)
