"""Writes a regenerated step as files for an auditor on another machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from anh_jax.audit.folder_source import branch_folder, manifest_name
from anh_jax.audit.regeneration import RegeneratedStep
from anh_jax.run_directory import write_atomically
from anh_jax.training.retained_steps import RetainedSteps
from attest import canonical
from attest.errors import FormatError
from launch.errors import CommandError
from launch.replaying import Opened, SignedTree
from launch.state_shelf import Wish

FORMAT = "anh replayed states v1"
_INDEX = "replay.json"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """The files of one step, in the order in which they were written, and their bytes in all."""

    files: tuple[Path, ...]
    size: int


def write_step(opened: Opened, made: RegeneratedStep, folder: Path) -> Written:
    """Write the states before and after a step, its gradient, and a signed manifest of each.

    No key is written. Raises CommandError where the folder holds the states of another run.
    """
    step, row = made.signed.row.step, made.signed.row_hash
    folder.mkdir(parents=True, exist_ok=True)
    steps = _steps_here(folder, opened.signed.run)
    if row != opened.signed.line.rows[step - 1].row_hash:
        return _write_branch(opened, made, folder, steps)
    retained = RetainedSteps(folder)
    retained.save_state(step - 1, made.before)
    retained.save(step, made.outputs, made.after)
    committed = {name: made.outputs[name] for name in ("gradient", "statistics")}
    trees = {
        Wish("state", step - 1): made.before,
        Wish("gradient", step): committed,
        Wish("state", step): made.after,
    }
    paths = [retained.path(step - 1), retained.path(step)]
    for wish, tree in trees.items():
        # A state whose row commits none cannot be shown to be it; its file only saves the way.
        if opened.why_not(wish):
            continue
        paths.append(folder / manifest_name(wish.part, wish.step))
        write_atomically(paths[-1], SignedTree(tree, opened, wish).shown)
    return _indexed(folder, opened, [*steps, step], paths)


def _write_branch(opened: Opened, made: RegeneratedStep, folder: Path, steps: list[int]) -> Written:
    """Write gradient and state of a step that is not on the line; the line's stay as they are."""
    branch = branch_folder(folder, made.signed.row_hash.hex())
    branch.mkdir(exist_ok=True)
    retained = RetainedSteps(branch)
    retained.save(made.signed.row.step, made.outputs, made.after)
    return _indexed(folder, opened, steps, [retained.path(made.signed.row.step)])


def _indexed(folder: Path, opened: Opened, steps: list[int], paths: list[Path]) -> Written:
    index: dict[str, canonical.JSON] = {
        "format": FORMAT,
        "run": opened.signed.run,
        "steps": tuple(sorted(set(steps))),
    }
    write_atomically(folder / _INDEX, canonical.encode(index))
    return Written((*paths, folder / _INDEX), sum(path.stat().st_size for path in paths))


def _steps_here(folder: Path, run: str) -> list[int]:
    """Return the steps that lie in a folder already."""
    path = folder / _INDEX
    if not path.is_file():
        if any(folder.iterdir()):
            raise CommandError(f"{folder}: holds other files; name a new folder with --out")
        return []
    try:
        value = canonical.decode(path.read_bytes(), max_bytes=_MAX_BYTES)
    except FormatError as error:
        raise CommandError(f"{path}: damaged ({error}); name a new folder with --out") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT or value.get("run") != run:
        raise CommandError(f"{path}: of another run; name a new folder with --out")
    return list(cast("list[int]", value["steps"]))
