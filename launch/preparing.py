"""Prepares a contract in a child process that sees no accelerator."""

import json
import os
import subprocess
import sys
from pathlib import Path

from anh_jax.run_directory import RunDirectory
from launch.errors import CommandError


def prepare_in_child(run: RunDirectory) -> None:
    """Prepare the contract of `run`'s config.yaml; raises what the child said in one line."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "launch.preparing", str(run.root)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["the child process ended without a word"]
        try:
            message = json.loads(lines[-1])["message"]
        except (json.JSONDecodeError, KeyError, TypeError):
            message = lines[-1]
        raise CommandError(message)


def main(root: Path) -> int:
    """Prepare in this process; an error of ours becomes one JSON line on stderr."""
    from anh_jax.errors import AnhError
    from anh_jax.experiment import load_experiment
    from anh_jax.preparation import prepare
    from launch.compile_cache import cache_folder

    try:
        experiment = load_experiment(root / "config.yaml")
        prepare(experiment, cache=cache_folder() / "programs").write(RunDirectory(root))
    except AnhError as error:
        print(json.dumps({"message": str(error)}), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
