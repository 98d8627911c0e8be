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
from anh_jax.audit.parting import Parted, part
from anh_jax.audit.results import StepResult
from anh_jax.audit.scan import Scanned, StepScan
from anh_jax.audit.transcript import Transcript
from anh_jax.run_directory import RunDirectory
from anh_jax.training.checkpoints import TrainingCheckpoints
from anh_jax.training.retained_steps import RetainedSteps
from anh_jax.workbench import MeshSizes, read_materials
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
    with opened_run(place.directory, place.states) as opened:
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
    with opened_run(first) as one, opened_run(second) as two:
        return part(one.search, two.search)


def worst(steps: tuple[FirstStep, ...]) -> str:
    """Return the gravest outcome among judged steps."""
    outcomes = [found.result.outcome for found in steps]
    return next((o for o in ("refuted", "withheld", "unattestable") if o in outcomes), "pass")


@contextmanager
def opened_run(directory: Path, states: str | None = None) -> Generator[Opened]:
    """Open a closed run for a search; states come from `states`, None for its own folder."""
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
