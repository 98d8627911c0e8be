"""The run that these tests tell, and tell wrong."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

SUPPORT = Path(__file__).resolve().parent / "support"


@pytest.fixture(scope="session")
def tale() -> ModuleType:
    """Return the module `run_story`: tests are no package, so its folder goes on the path."""
    if str(SUPPORT) not in sys.path:
        sys.path.insert(0, str(SUPPORT))
    return importlib.import_module("run_story")
