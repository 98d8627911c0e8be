"""The run that these tests tell, and tell wrong."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_STORY = Path(__file__).resolve().parent / "story.py"


@pytest.fixture(scope="session")
def tale() -> ModuleType:
    """Return the module of `story.py`: tests are no package, so it is loaded by file."""
    name = "tests_attest_story"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _STORY)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
