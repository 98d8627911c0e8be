import subprocess
import sys
from pathlib import Path

import pytest

from launch import bytecode


def test_bytecode_is_kept_apart_from_the_sources_for_this_process_and_its_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bytecode, "_installed_with_bytecode", lambda: False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bytecode.keep_here()
    assert sys.dont_write_bytecode is False
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "some_module.py").write_text("VALUE = 1\n")
    subprocess.run(
        [sys.executable, "-c", "import some_module"],
        env={"PYTHONPATH": str(sources), **bytecode.variables_for_children()},
        check=True,
    )
    assert [path.name for path in sources.iterdir()] == ["some_module.py"]
    assert len(list((tmp_path / "cache").rglob("some_module*.pyc"))) == 1


def test_a_python_that_keeps_bytecode_by_itself_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    bytecode.keep_here()
    assert sys.pycache_prefix is None
    assert bytecode.variables_for_children() == {}


def test_an_installation_that_came_with_bytecode_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bytecode, "_installed_with_bytecode", lambda: True)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    bytecode.keep_here()
    assert sys.pycache_prefix is None
