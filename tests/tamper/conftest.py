"""A run told wrong in one place, and the refusal that names the check."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.errors import RefusedError

_STORY = Path(__file__).resolve().parent.parent / "attest" / "story.py"


@pytest.fixture(scope="session")
def tale() -> ModuleType:
    """Return the module of `attest/story.py`: tests are no package, so it is loaded by file."""
    name = "tests_attest_story"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _STORY)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def refused() -> Callable[..., None]:
    """Return `refused(check, story, proof=None, **options)`: the client refuses by that check."""

    def refused(check: str, story: Any, proof: Any = None, **options: Any) -> None:
        with pytest.raises(RefusedError) as caught:
            story.verify(proof, **options)
        assert caught.value.check == check, str(caught.value)
        assert str(caught.value).startswith(f"{check}: ")
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 1

    return refused
