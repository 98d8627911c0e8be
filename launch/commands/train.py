"""`anh train CONFIG`: train, sign, log, prove, verify."""

from pathlib import Path

import click

from launch.compile_cache import set_compile_cache
from launch.errors import CommandError, ExitCode
from launch.output import Form, emit, json_option


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Where the run is kept.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that form one mesh.")
@click.option(
    "--runner", type=click.Choice(["auto", "local", "ray"]), default="auto", show_default=True,
    help="local: in this process; ray: a Ray worker group; auto: Ray for more than one worker.",
)  # fmt: skip
@click.option("--print-config", is_flag=True, help="Print the resolved configuration and stop.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    config: Path,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    workers: int | None,
    runner: str,
    print_config: bool,
    form: Form,
) -> None:
    """Train a model from a YAML file, so that anyone can check later what was trained.

    KEY=VALUE sets one key of the file, as in training.steps=50.
    """
    set_compile_cache()
    from anh_jax.experiment import experiment_yaml
    from launch import training

    experiment = training.resolved(config, overrides, workers)
    if print_config:
        emit(form, {"config": experiment_yaml(experiment)}, [experiment_yaml(experiment).rstrip()])
        return
    chosen = training.choose_runner(runner, experiment)
    root = run_dir or training.next_run_directory(config)
    if runner == "local" and experiment.runner.workers > 1:
        raise CommandError("--runner local runs one worker; leave it out for --workers 2 and more")
    summary = training.start(experiment, root, chosen)
    emit(form, summary.document(), summary.lines())
    ctx.exit(summary.exit_code if summary.exit_code else ExitCode.PASSED)
