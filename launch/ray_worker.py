"""What runs inside a Ray Train worker: the check of the mesh, then the entry function.

Importing this module imports Ray: do it inside a function, after the environment is set.
"""

import traceback
from pathlib import Path
from typing import Any, TypedDict

import ray.train

from anh_jax.run_directory import RunDirectory
from launch.attempt_broker import FileBroker
from launch.attempt_files import AttemptFiles
from launch.phases import PhaseLog
from launch.ray_backend import require_one_mesh
from launch.run_outcome import load_entry
from launch.stop_agreement import StopAgreement


class WorkerSettings(TypedDict):
    """What the driver tells every worker."""

    run_directory: str
    entry: str


class RayReporter:
    """Writes phases to files, tells Ray of training checkpoints, and stops all ranks together."""

    def __init__(self, phases: PhaseLog, agreement: StopAgreement) -> None:
        self._phases = phases
        self._agreement = agreement

    def phase(self, name: str, seconds: float) -> None:
        """Note the phase where the driver looks for it."""
        self._phases.add(name, seconds)

    def checkpoint(self, step: int, path: Path) -> None:
        """Tell Ray's controller; waits until every rank has come here.

        Only the step travels: which checkpoint to resume from is read from the run directory, and
        a second list of checkpoints, kept by Ray, would outlive those that Orbax removes.
        """
        ray.train.report({"step": step, "checkpoint": str(path)})

    def should_stop(self) -> bool:
        """Answer all ranks alike."""
        return self._agreement.should_stop()

    def close(self) -> None:
        """End the watcher."""
        self._agreement.close()


def run_worker(settings: WorkerSettings) -> None:
    """Train in one worker of a group that forms one mesh; Ray calls it in every worker.

    Raises MeshError before anything else where the group forms none.
    """
    import jax

    context = ray.train.get_context()
    place = require_one_mesh(worker=context.get_world_rank(), processes=context.get_world_size())
    run_directory = Path(settings["run_directory"])
    files = AttemptFiles(run_directory / "attempts")
    agreement = StopAgreement(
        files,
        place.generation,
        rank=place.rank,
        processes=place.processes,
        request=RunDirectory(run_directory).stop_request,
    )
    reporter = RayReporter(PhaseLog(files, place.generation, str(place.rank)), agreement)
    try:
        load_entry(settings["entry"])(
            run_directory,
            rank=place.rank,
            processes=place.processes,
            broker=FileBroker(files, place.generation),
            reporter=reporter,
        )
    except Exception as error:
        # The error travels without its frames; the driver shows these where they are asked for.
        error.add_note(f"in worker {place.rank}:\n{traceback.format_exc()}")
        raise
    finally:
        reporter.close()
    # Together and before Ray ends the processes: a rank that loses its coordinator aborts, and a
    # finished run would count as a failed one.
    jax.distributed.shutdown()


def settings_for(run_directory: Path, entry: str) -> dict[str, Any]:
    """Return the worker settings as the plain dict that Ray passes on."""
    return dict(WorkerSettings(run_directory=str(run_directory), entry=entry))
