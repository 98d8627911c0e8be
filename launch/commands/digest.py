"""`anh digest`: the state digest of one step, and what digests of a planned run will cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from launch.errors import CommandError, ExitCode
from launch.output import Form, Tone, emit, json_option, table, toned

# What large language models reach on TPUs and GPUs (PaLM, arXiv:2204.02311, table 3: 0.46).
_UTILISATION = 0.4


@click.command(name="digest")
@click.argument("words", metavar="[D | KEY=VALUE...]", nargs=-1)
@click.option("--step", type=int, help="Steps completed; 0 is the fresh state.")
@click.option("--plan", type=click.Path(path_type=Path), help="Predict for this configuration.")
@click.option("--chips", type=click.IntRange(min=1), help="Chips that train; a power of two.")
@click.option("--hardware", metavar="H", help="Their kind, as h100 or v5p; cpu is this host.")
@click.option("--tokens-per-step", type=click.IntRange(min=1), help="Above the configuration's.")
@click.option(
    "--mfu",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Share of the peak that training reaches; default 0.4.",
)
@json_option
def command(
    *,
    words: tuple[str, ...],
    step: int | None,
    plan: Path | None,
    chips: int | None,
    hardware: str | None,
    tokens_per_step: int | None,
    mfu: float | None,
    form: Form,
) -> int:
    """Print the state digest of one step, or predict what digests will cost.

    anh digest D --step N prints what the run D has signed. Where a training checkpoint of that
    step is retained, its state is digested again and compared; exits with 1 where it differs.

    anh digest --plan CONFIG [KEY=VALUE...] --chips N --hardware H predicts the seconds of a step
    and of its digests, and the digest policy they lead to. Nothing is trained.
    """
    planned = {
        "--chips": chips,
        "--hardware": hardware,
        "--tokens-per-step": tokens_per_step,
        "--mfu": mfu,
    }
    given = [name for name, value in planned.items() if value is not None]
    if plan is None:
        if given:
            raise CommandError(f"{given[0]} goes with --plan CONFIG")
        if len(words) != 1 or step is None:
            raise CommandError("give a run and its step, D --step N, or --plan CONFIG")
        return _signed(Path(words[0]), step, form)
    if step is not None:
        raise CommandError("--step belongs to a run, --plan to a configuration: give one of them")
    if chips is None or hardware is None:
        raise CommandError("--plan needs --chips N and --hardware H")
    from launch import plan_report
    from launch.digest_plan import PlanRequest, digest_plan

    request = PlanRequest(plan, words, chips, hardware, tokens_per_step, mfu or _UTILISATION)
    made = digest_plan(request)
    emit(form, plan_report.document(made), plan_report.lines(made))
    return ExitCode.PASSED


def _signed(directory: Path, step: int, form: Form) -> int:
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
