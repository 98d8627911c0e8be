"""A run told wrong in one place, and the refusal that names the check."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.errors import RefusedError

SUPPORT = Path(__file__).resolve().parent.parent / "attest" / "support"


@pytest.fixture(scope="session")
def tale() -> ModuleType:
    """Return the module `run_story`: tests are no package, so its folder goes on the path."""
    if str(SUPPORT) not in sys.path:
        sys.path.insert(0, str(SUPPORT))
    return importlib.import_module("run_story")


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
