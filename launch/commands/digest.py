"""`anh digest`: the state digest of one step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from launch.errors import ExitCode
from launch.output import Form, Tone, emit, json_option, table, toned


@click.command(name="digest")
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@click.option("--step", type=int, required=True, help="Steps completed; 0 is the fresh state.")
@json_option
def command(*, directory: Path, step: int, form: Form) -> int:
    """Print the state digest of one step.

    Prints what the run D has signed. Where a training checkpoint of that step is retained, its
    state is digested again and compared; exits with 1 where it differs.
    """
    from launch.step_numbers import read_step

    numbers = read_step(directory, step)
    again = _again(directory, step, numbers.alg)
    signed = numbers.signed
    agrees = None
    if again.root is not None and numbers.state_root is not None:
        agrees = again.root == numbers.state_root
    document: dict[str, Any] = {
        "run": numbers.run,
        "step": step,
        "alg": numbers.alg,
        "stateRoot": numbers.state_root,
        "gradientRoot": None if signed is None else signed.row.gradient_root,
        "retained": again.root,
        "agrees": agrees,
    }
    pairs = [("state", numbers.state_root or "not hashed at this step (digest policy)")]
    if signed is not None:
        pairs.append(("gradient", signed.row.gradient_root))
    pairs += [("alg", numbers.alg), ("retained", _words(again, agrees))]
    emit(form, document, [f"step {step} of run {numbers.run}", *table(pairs)])
    return ExitCode.FAILED if agrees is False else ExitCode.PASSED


@dataclass(frozen=True, slots=True)
class Again:
    """The digest of the retained state, or why there is none."""

    root: str | None
    why: str = ""


def _again(directory: Path, step: int, alg: str) -> Again:
    from anh_jax.run_directory import RunDirectory
    from launch.step_numbers import retained_steps

    if step not in retained_steps(RunDirectory.open(directory)):
        return Again(None, "no training checkpoint of this step")
    try:
        from anh_jax.digest.host import tree_digest
        from launch.retained_state import read_state
    except ModuleNotFoundError:
        # What was signed can be read with the base install; hashing a state cannot.
        return Again(None, "yes; digesting it again takes pip install 'anh-jax[train]'")
    return Again(tree_digest(read_state(directory, step), step=step, alg=alg).root.hex())


def _words(again: Again, agrees: bool | None) -> str:
    if again.root is None:
        return again.why
    if agrees is None:
        return f"{again.root} (nothing signed to compare with)"
    if agrees:
        return toned("digested again, equal", Tone.GOOD)
    return toned(f"digested again, DIFFERENT: {again.root}", Tone.BAD)
