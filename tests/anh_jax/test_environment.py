import hashlib
from pathlib import Path

import pytest

from anh_jax import environment
from anh_jax.errors import AnhError


def flags() -> str:
    return environment.execution_class({"data": 1}, processes=1)["flags"]


def test_no_flags_are_said_in_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert flags() == "none"


def test_flags_in_a_file_are_part_of_the_class(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "flags.txt"
    file.write_text("--xla_cpu_enable_fast_math=true\n")
    monkeypatch.setenv("XLA_FLAGS", str(file))
    assert flags() == "--xla_cpu_enable_fast_math=true"


def test_an_unreadable_flag_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "/nowhere/flags.txt")
    with pytest.raises(AnhError, match="XLA_FLAGS"):
        flags()


def test_a_path_in_a_flag_is_named_by_what_lies_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results = tmp_path / "autotune.txt"
    monkeypatch.setenv("XLA_FLAGS", f"--xla_gpu_load_autotune_results_from={results}")
    results.write_text("one")
    first = flags()
    results.write_text("two")
    assert first != flags()
    assert str(tmp_path) not in first
    assert hashlib.sha256(b"one").hexdigest()[:16] in first


def test_the_class_names_processor_and_libraries() -> None:
    found = environment.execution_class({"data": 2}, processes=2)
    assert {"cpu", "accelerator", "jaxlibFiles", "isa", "threads", "driver"} <= set(found)
    assert all(value for value in found.values())
    assert found["mesh"] == "data=2"
