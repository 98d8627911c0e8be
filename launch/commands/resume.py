"""`anh resume D`: go on from the newest durable training checkpoint."""

from pathlib import Path

import click

from launch.compile_cache import set_compile_cache
from launch.errors import ExitCode
from launch.output import Form, emit, json_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that form one mesh.")
@click.option(
    "--runner", type=click.Choice(["auto", "local", "ray"]), default="auto", show_default=True,
    help="local: in this process; ray: a Ray worker group; auto: Ray for more than one worker.",
)  # fmt: skip
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    run: Path,
    overrides: tuple[str, ...],
    workers: int | None,
    runner: str,
    form: Form,
) -> None:
    """Go on with a run that was stopped, from its newest durable training checkpoint.

    KEY=VALUE may change what neither the contract nor genesis commits, as in mesh.data=2.
    """
    set_compile_cache()
    from launch import training

    summary = training.resume(run, overrides, workers, runner)
    emit(form, summary.document(), summary.lines())
    ctx.exit(summary.exit_code if summary.exit_code else ExitCode.PASSED)
