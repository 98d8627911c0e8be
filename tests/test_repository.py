"""The repository holds what it says: a file that git ignores is a file that nobody else has."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("anh_jax", "attest", "launch", "tests", "bench", "examples", "configs", "docs", ".ci")


def test_no_file_of_ours_is_hidden_from_git() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: nothing says what is ignored")
    files = [
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT, input="\n".join(files), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr


def test_every_folder_that_the_budget_lists_is_there() -> None:
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    folders = re.findall(r"^\| `([a-z_]+/)` \|", text, flags=re.MULTILINE)
    assert "runs/" in folders
    missing = [name for name in folders if not (ROOT / "tests" / name).exists()]
    assert missing == []


def test_every_shape_in_a_signature_of_models_programs_and_training_is_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    options = project["tool"]["pytest"]["ini_options"]["addopts"]
    hooked = re.search(r"--jaxtyping-packages=(\S+)", options)
    assert hooked is not None
    names = hooked.group(1).split(",")[:-1]  # the last one is who checks
    stating = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for room in ("models", "program", "training")
        for path in sorted((ROOT / "anh_jax" / room).rglob("*.py"))
        if re.search("^from jaxtyping import", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(stating) > 10
    unchecked = [
        module for module in stating
        if not any(module == name or module.startswith(f"{name}.") for name in names)
    ]  # fmt: skip
    assert unchecked == []
