"""The lock pins and hashes what pyproject.toml asks for, and leaves where it comes from to pip."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = ("3.11.0", "3.12.0", "3.13.0")


def entries() -> list[tuple[Requirement, list[str]]]:
    """Return each pinned requirement with its hashes."""
    found: list[tuple[Requirement, list[str]]] = []
    lines = (line for line in LOCK.splitlines() if not line.startswith("#"))
    for entry in re.split(r"\n(?=\S)", "\n".join(lines)):
        first, *hashes = [part.strip() for part in entry.split("\\\n")]
        found.append((Requirement(first), hashes))
    return found


def pins(python: str) -> dict[str, str]:
    """Return the version of each package that a Python on Linux gets."""
    where = {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "os_name": "posix",
    }
    return {
        canonicalize_name(found.name): next(iter(found.specifier)).version
        for found, _ in entries()
        if found.marker is None or found.marker.evaluate(where)
    }


def test_it_names_no_host_no_index_and_no_file() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^\s*-", LOCK.replace("    --hash=", ""), flags=re.MULTILINE)
    assert not re.search(r"\b[\w-]+\.(com|org|net|io|dev)\b", LOCK)
    assert all(found.url is None for found, _ in entries())


def test_every_package_has_one_version_and_its_hashes() -> None:
    for found, hashes in entries():
        assert [pin.operator for pin in found.specifier] == ["=="], found
        assert hashes, found
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", text) for text in hashes), found


@pytest.mark.parametrize("python", PYTHONS)
def test_it_gives_what_the_project_asks_for(python: str) -> None:
    pinned = pins(python)
    asked = [*PROJECT["dependencies"], *EXTRAS["train"], *EXTRAS["test"]]
    here = {"python_version": python.rpartition(".")[0]}
    for wanted in map(Requirement, asked):
        if wanted.marker is None or wanted.marker.evaluate(here):
            version = pinned[canonicalize_name(wanted.name)]
            assert wanted.specifier.contains(version), f"{wanted}: {version} is locked"


def test_jax_and_flax_are_locked_as_the_pairs_that_work() -> None:
    pairs = {
        python: {name: pins(python)[name] for name in ("jax", "jaxlib", "flax")}
        for python in PYTHONS
    }
    newer = {"jax": "0.12.0.1", "jaxlib": "0.12.0.1", "flax": "0.12.12"}
    older = {"jax": "0.10.2", "jaxlib": "0.10.2", "flax": "0.12.8"}
    assert pairs == {"3.11.0": older, "3.12.0": newer, "3.13.0": newer}
