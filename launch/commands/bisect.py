"""`anh bisect`: find the first bad step of a run, and the operator computed wrongly in it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launch.compile_cache import set_compile_cache
from launch.errors import CommandError
from launch.output import Form, emit, json_option

if TYPE_CHECKING:
    from anh_jax.audit.bisect import Stretch
    from launch.recordings import Part

_PATH = click.Path(path_type=Path)


@click.command(name="bisect")
@click.argument("directory", metavar="D", type=_PATH)
@click.option("--against", metavar="D2", type=_PATH, help="Another run of the same contract.")
@click.option("--between", metavar="8,24", help="Search from a retained state to a step.")
@click.option("--states", metavar="DIR|URL",
              help="Take states from here alone: anh replay --out or --serve.")  # fmt: skip
@click.option("--record-step", type=click.IntRange(min=1), metavar="N",
              help="As the trainer: record a step operator by operator, signed.")  # fmt: skip
@click.option("--of", "part", type=click.Choice(["gradient", "update"]),
              help="Which program of the step to record; default gradient.")  # fmt: skip
@click.option("--show", multiple=True, metavar="NAME",
              help="Keep this operator's values beside the recording, of any size.")  # fmt: skip
@click.option("--recording", type=_PATH, metavar="DIR", help="As the challenger: follow one.")
@click.option("--out", type=_PATH, metavar="PATH",
              help="The folder of the recording, or the file of the refutation.")  # fmt: skip
@json_option
def command(
    *,
    directory: Path,
    against: Path | None,
    between: str | None,
    states: str | None,
    record_step: int | None,
    part: "Part | None",
    show: tuple[str, ...],
    recording: Path | None,
    out: Path | None,
    form: Form,
) -> int:
    """Find the first bad step of a run, and the operator that was computed wrongly.

    Of D alone, the run is compared with its own replay by halving; on another execution class each
    step is weighed whose states are shown. Where a step's update or state 0 is wrong, --out is a
    file that 'anh verify' checks by one element of it. With --against the step is found at which
    two runs part, and judged for both. Then, inside a step: the trainer records it with
    --record-step, and whoever doubts it follows the recording with --recording; where an operator
    is outside its worst-case bound, --out is a file that 'anh verify' checks by running this one
    operator. Exits with 1 where something is refuted, with 2 where this machine cannot decide.
    """
    modes = [against is not None, between is not None, record_step is not None, recording]
    if sum(map(bool, modes)) > 1:
        raise CommandError("--against, --between, --record-step, --recording: give one of them")
    if record_step is not None and out is None:
        raise CommandError("--record-step: name the folder of the recording with --out")
    if against is not None and (out is not None or states is not None):
        raise CommandError("--against: takes neither --out nor --states")
    if record_step is not None and states is not None:
        raise CommandError("--record-step: a trainer has his own states; leave out --states")
    if (show or part) and record_step is None:
        raise CommandError("--show and --of: go with --record-step")
    set_compile_cache()
    from launch import bisect_answer, bisecting, recordings

    if against is not None:
        answer = bisect_answer.parted(bisecting.compare_runs(directory, against), against)
    elif record_step is not None and out is not None:
        written = recordings.record_step(
            directory, record_step, out, wanted=show, part=part or "gradient"
        )
        answer = bisect_answer.recorded(written, directory)
    elif recording is not None:
        found = recordings.follow_recording(directory, recording, out, states)
        answer = bisect_answer.followed(found)
    else:
        stretch = None if between is None else _stretch(between)
        place = bisecting.Place(directory, stretch, states)
        answer = bisect_answer.searched(bisecting.search_run(place, out), directory)
    emit(form, answer.document, answer.lines)
    return answer.exit_code


def _stretch(text: str) -> "Stretch":
    from anh_jax.audit.bisect import Stretch

    parts = text.split(",")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise CommandError(f"--between {text}: write two steps, for example 8,24")
    return Stretch(int(parts[0]), int(parts[1]))
