"""Where `anh audit --states` takes states from: a folder, or a server at a URL."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from anh_jax.audit.folder_source import FolderSource
from anh_jax.audit.shown_tree import RunNames
from anh_jax.audit.state_source import StateSource
from anh_jax.audit.transcript import SignedRun
from attest.durable_file import make_directory
from attest.file_lock import locked
from launch.compile_cache import cache_folder
from launch.errors import CommandError
from launch.output import progress
from launch.state_client import StateClient
from launch.state_download import ServedStates
from launch.state_server import TOKEN

_MIB = 1 << 20


@contextmanager
def open_source(states: str, signed: SignedRun) -> Generator[StateSource, None, None]:
    """Open what `--states` names for a run.

    Raises CommandError where it is neither a folder nor a URL, or another audit of the same run is
    downloading its states.
    """
    genesis = signed.genesis
    names = RunNames(run=signed.run, run_key=genesis.run_key, alg=genesis.alg)
    if "://" not in states:
        if not Path(states).is_dir():
            raise CommandError(f"--states {states}: no such folder; name one, or http://host:8471")
        yield FolderSource(Path(states), names)
        return
    folder = cache_folder() / "states"
    make_directory(folder)
    with (
        locked(folder / f"{signed.run[:16]}.lock", wait_seconds=0.0),
        progress("states MiB", total=0) as bar,
    ):
        client = StateClient(states, token=os.environ.get(TOKEN) or None, told=bar.note)

        def told(name: str, done: int, total: int) -> None:
            if done >= total > _MIB:
                bar.note(f"{name}: {total / _MIB:,.1f} MiB arrived, every tile as committed")

        source = ServedStates(client, names, folder, told=told)
        try:
            yield source
        finally:
            source.close()
