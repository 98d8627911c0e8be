"""Functions named in a config: found, or named with what is wrong."""

import os.path
from pathlib import Path

import pytest

from anh_jax.errors import ConfigError
from anh_jax.imported import load_function


def test_named_function_is_the_function() -> None:
    assert load_function("os.path:join", key="data.import") is os.path.join


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:f", "No module named 'no_such_module'; install the module or put its"),
        ("os.no_such:f", "No module named 'os.no_such'"),
        ("os:no_such", "os has no function no_such"),
        ("os:sep", "os has no function sep"),
        ("raises_at_import:f", "importing it raised ZeroDivisionError: division by zero"),
    ],
)
def test_function_that_is_not_there_is_named(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raises_at_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_function(path, key="loss.import")
    assert str(caught.value).startswith(f"loss.import: {path}: ")
    assert message in str(caught.value)
