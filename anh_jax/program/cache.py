"""Keeps exported programs between runs: tracing and lowering them is most of a warm start.

An entry is found by everything that its bytes depend on: the configuration, the shapes of the
examples, the versions of what traces and lowers, and this package's own source. A configuration
that imports code of your own is never cached, since its source cannot be known. What is read back
is checked like any other stored program.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from anh_jax.errors import ProgramError
from anh_jax.program.programs import ContractPrograms, read_programs
from anh_jax.program.update_check import UpdateKind

_VERSIONS = ("jax", "jaxlib", "flax", "optax")
_TRACED = ("program", "models", "training")
_IDS = "ids.json"


def cached_programs(
    folder: Path | None,
    config: bytes,
    fields: Mapping[str, tuple[tuple[int, ...], str]],
    build: Callable[[], ContractPrograms],
    *,
    update: UpdateKind = "elementwise",
) -> ContractPrograms:
    """Return the programs that `build` would make, from the cache where they lie there.

    `config` is what they depend on, `fields` the shape and dtype of each field of an example,
    `update` the optimizer's kind. Without a `folder`, or where it cannot be used, they are built.
    """
    if folder is None:
        return build()
    entry = folder / _key(config, fields)
    with contextlib.suppress(ProgramError, OSError, ValueError):
        ids = json.loads((entry / _IDS).read_text(encoding="ascii"))
        return read_programs(entry, ids, update=update)
    programs = build()
    with contextlib.suppress(ProgramError, OSError):
        _keep(programs, entry)
    return programs


def _key(config: bytes, fields: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    digest = hashlib.sha256()
    parts = [config, json.dumps(fields, sort_keys=True).encode()]
    parts += [importlib.metadata.version(package).encode() for package in _VERSIONS]
    package = Path(__file__).resolve().parent.parent
    for name in _TRACED:
        for path in sorted((package / name).glob("*.py")):
            parts += [path.name.encode(), path.read_bytes()]
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _keep(programs: ContractPrograms, entry: Path) -> None:
    """Write an entry whole or not at all: another process may be reading."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=entry.parent))
    try:
        programs.save(draft)
        (draft / _IDS).write_text(json.dumps(programs.ids), encoding="ascii")
        os.rename(draft, entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
