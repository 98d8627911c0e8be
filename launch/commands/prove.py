"""`anh prove D`: ship what is signed, then put the run proof together."""

from pathlib import Path

import click

from launch.output import Form, emit, json_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the proof goes.")
@click.option("--policy", type=click.Path(path_type=Path), metavar="P",
              help="A reader's: its keys' records go first, its witnesses are kept.")  # fmt: skip
@json_option
def command(run: Path, output: Path | None, policy: Path | None, form: Form) -> None:
    """Log what a run has signed and write its run proof."""
    from anh_jax.run_directory import RunDirectory
    from attest.policy import load_policy
    from launch.logs import run_log
    from launch.prover import prove

    directory = RunDirectory.open(run)
    with run_log(directory) as log:
        reader = None if policy is None else load_policy(policy)
        path = prove(directory, log, output=output, reader=reader)
        size = log.size
    document = {"proof": str(path), "bytes": path.stat().st_size, "logSize": size}
    check = f"check it: anh verify {path} --policy {policy or run / 'policy.toml'}"
    emit(form, document, [f"{path}: {document['bytes']:,} bytes, log of {size} records", check])
