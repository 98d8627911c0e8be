"""What `anh train` and `anh resume` do once their arguments are read."""

import itertools
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from anh_jax.experiment import Experiment, check_resumable, experiment_yaml, load_experiment
from anh_jax.run_directory import RunDirectory, write_atomically
from launch.compile_cache import cache_folder
from launch.driver import RunDriver, Shipped
from launch.errors import CommandError, ExitCode
from launch.metrics_rows import MetricsRow
from launch.output import Progress, progress
from launch.phases import Phase
from launch.run_outcome import RunOutcome
from launch.start_checks import check_start
from launch.unsigned_run import NOTHING_SIGNED
from launch.watch import RunWatch


@dataclass(frozen=True)
class Summary:
    """What a run leaves behind, for people and for programs."""

    facts: dict[str, Any]
    shown: tuple[str, ...]
    exit_code: int = 0

    def document(self) -> dict[str, Any]:
        """Return the summary for programs."""
        return self.facts

    def lines(self) -> tuple[str, ...]:
        """Return the summary for people."""
        return self.shown


def resolved(config: Path, overrides: tuple[str, ...], workers: int | None) -> Experiment:
    """Read the configuration; `workers` stands above the file's, and fills a mesh of one."""
    extra = () if workers is None else (f"runner.workers={workers}",)
    experiment = load_experiment(config, (*overrides, *extra))
    mesh = experiment.mesh
    if experiment.runner.workers > 1 and mesh.data * mesh.fsdp * mesh.tensor == 1:
        spread = msgspec.structs.replace(mesh, data=experiment.runner.workers)
        return msgspec.structs.replace(experiment, mesh=spread)
    return experiment


def choose_runner(runner: str, experiment: Experiment) -> str:
    """Return `local` or `ray`: Ray for more than one worker or where a cluster is named."""
    if runner != "auto":
        return runner
    if experiment.runner.workers > 1 or os.environ.get("RAY_ADDRESS"):
        return "ray"
    return "local"


def next_run_directory(config: Path) -> Path:
    """Return `runs/<config file stem>-<n>` with the first free n."""
    for number in itertools.count(1):
        root = Path("runs") / f"{config.stem}-{number}"
        if not root.exists():
            return root
    raise AssertionError


def start(experiment: Experiment, root: Path, runner: str) -> Summary:
    """Prepare a new run and train it to its end."""
    check_start(experiment, runner)
    say = _Speaker()
    clock = time.perf_counter()
    with RunDirectory.prepared(root) as run:
        prepare_run(experiment, run, runner)
    say.phase(Phase("contract prepared", time.perf_counter() - clock))
    if runner == "local":
        warn_of_idle_accelerator(say.line)
    return _train(run, runner, say)


def resume(root: Path, overrides: tuple[str, ...], workers: int | None, runner: str) -> Summary:
    """Go on with a run; what contract and genesis commit may not change."""
    run = RunDirectory.open(root)
    if run.has_statement("final"):
        raise CommandError(f"{root}: the run is final; 'anh audit {root}' checks it")
    path = run.root / "config.yaml"
    old = load_experiment(path)
    new = resolved(path, overrides, workers)
    check_resumable(old, new)
    check_start(new, choose_runner(runner, new))
    if new != old:
        write_atomically(path, experiment_yaml(new).encode())
    return _train(run, choose_runner(runner, new), _Speaker())


def warn_of_idle_accelerator(say: Callable[[str], None]) -> None:
    """Say so where this machine has an accelerator that jax does not see."""
    import jax

    from launch import accelerators

    words = accelerators.mismatch(accelerators.present(), jax.default_backend())
    if words:
        say(f"warning: {words}")


def prepare_run(experiment: Experiment, run: RunDirectory, runner: str) -> None:
    """Write the contract and its parts into a new run directory.

    With workers in other processes this runs in a child that sees no accelerator: whoever drives
    a pod must not take its chips.
    """
    if runner == "local":
        from anh_jax.preparation import prepare

        prepare(experiment, cache=cache_folder() / "programs").write(run)
        return
    write_atomically(run.root / "config.yaml", experiment_yaml(experiment).encode())
    from launch.preparing import prepare_in_child

    prepare_in_child(run)


def _train(run: RunDirectory, runner: str, say: "_Speaker") -> Summary:
    clock = time.perf_counter()
    with RunDriver(run) as driver:
        steps = driver.experiment.training.steps
        watch = RunWatch(run.metrics)
        told = "progress" in driver.experiment.trackers
        with progress(run.root.name, total=steps) if told else nullcontext() as bar:
            say.bar = bar

            def poll() -> None:
                driver.check()
                shipped = driver.shipped()
                for row in watch.new():
                    if bar is not None:
                        bar.reached(row.step, _figures(row, shipped))

            outcome = _run(run, runner, driver, say, poll)
            poll()
        say.bar = None
        driver.drain()
        if outcome.ending == "interrupted":
            return _stopped(run, watch.last_step)
        if not driver.attested:
            return _unattested(run, time.perf_counter() - clock)
        if driver.finish() is None:
            return _unlogged(run, driver.behind)
    return _finished(run, time.perf_counter() - clock)


def _figures(row: MetricsRow, shipped: Shipped) -> dict[str, float]:
    figures: dict[str, float] = {}
    if row.loss is not None:
        figures["loss"] = row.loss
    if row.seconds is not None:
        figures["step_ms"] = 1e3 * row.seconds
    return figures | {"signed": shipped.signed, "logged": shipped.logged}


def _run(
    run: RunDirectory,
    runner: str,
    driver: RunDriver,
    say: "_Speaker",
    poll: Callable[[], None],
) -> RunOutcome:
    if runner == "local":
        from launch.runner_local import run_locally

        return run_locally(run.root, grant=driver.grant, on_phase=say.phase, on_poll=poll)
    from launch.runner_ray import run_with_ray

    return run_with_ray(
        run.root,
        driver.experiment.runner.workers,
        grant=driver.grant,
        on_phase=say.phase,
        on_poll=poll,
    )


class _Speaker:
    """Prints a line per phase, above the progress bar while there is one."""

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def phase(self, phase: Phase) -> None:
        rank = "" if phase.writer in ("driver", "group", "0") else f" (rank {phase.writer})"
        seconds = f"{phase.seconds:6.1f} s" if phase.seconds else " " * 8
        self.line(f"{seconds}  {phase.name}{rank}")

    def line(self, line: str) -> None:
        """Print one line."""
        if self.bar is not None:
            self.bar.note(line)
            return
        import click

        click.echo(line, err=True)


def _stopped(run: RunDirectory, step: int) -> Summary:
    line = f"stopped after step {step}; go on with: anh resume {run.root}"
    facts = {"run": str(run.root), "step": step, "ending": "interrupted"}
    return Summary(facts=facts, shown=(line,), exit_code=ExitCode.STOPPED)


def _unlogged(run: RunDirectory, why: str) -> Summary:
    line = f"the run is over and signed, but its log is not up to date: {why}"
    facts = {"run": str(run.root), "ending": "finished", "attested": True, "behind": why}
    shown = (line, f"ship the rest with: anh prove {run.root}")
    return Summary(facts=facts, shown=shown, exit_code=ExitCode.COULD_NOT_RUN)


def _unattested(run: RunDirectory, seconds: float) -> Summary:
    facts = {"run": str(run.root), "ending": "finished", "attested": False, "seconds": seconds}
    facts |= _holdout(run)
    return Summary(
        facts=facts,
        shown=(
            *_holdout_lines(facts),
            f"run directory    {run.root}",
            NOTHING_SIGNED,
        ),
    )


def _finished(run: RunDirectory, seconds: float) -> Summary:
    from anh_jax.attested_run import run_id
    from attest.contract import Contract
    from attest.statements import Final, decode_statement
    from launch.verification import read_policy, verify_proof

    final = decode_statement(run.statement("final").payload)
    assert isinstance(final, Final)
    proof = (run.root / "run.proof").read_bytes()
    timed = verify_proof(proof, read_policy(run.root / "policy.toml"))
    contract = Contract.from_bytes(run.contract_bytes()).id
    facts: dict[str, Any] = {
        "run": str(run.root),
        "runId": run_id(run),
        "contract": contract,
        "finalState": final.state_root,
        "proofBytes": len(proof),
        "verdict": timed.verdict.headline(),
        "seconds": seconds,
        "ending": "finished",
        "attested": True,
    }
    facts |= _holdout(run)
    shown = (
        *_holdout_lines(facts),
        f"contract         {contract}",
        f"final state      {final.state_root}",
        f"run directory    {run.root}",
        f"run proof        {run.root / 'run.proof'} ({len(proof):,} bytes)",
        f"client says      {timed.verdict.headline()} ({timed.milliseconds:.1f} ms)",
        *_sample(run),
        "next",
        f"  anh verify {run.root / 'run.proof'} --policy {run.root / 'policy.toml'}",
        f"  anh audit {run.root} --samples 8",
        f"  anh report {run.root}",
    )
    return Summary(facts=facts, shown=shown, exit_code=timed.verdict.exit_code)


def _holdout(run: RunDirectory) -> dict[str, Any]:
    newest: dict[str, Any] = {}
    for row in run.read_metrics():
        if "holdout_total" in row:
            newest = row
    if not newest:
        return {}
    return {
        "holdoutCorrect": newest["holdout_correct"],
        "holdoutTotal": newest["holdout_total"],
        "holdoutLoss": newest["holdout_loss"],
    }


def _holdout_lines(facts: dict[str, Any]) -> tuple[str, ...]:
    if "holdoutTotal" not in facts:
        return ()
    share = facts["holdoutCorrect"] / max(facts["holdoutTotal"], 1)
    return (
        f"hold-out         {share:.2%} right ({facts['holdoutCorrect']:,} of "
        f"{facts['holdoutTotal']:,}), loss {facts['holdoutLoss']:.4f}",
    )


def _sample(run: RunDirectory) -> tuple[str, ...]:
    path = run.root / "sample.txt"
    if not path.exists():
        return ()
    return ("text sample", *(f"  {line}" for line in path.read_text().splitlines()))
