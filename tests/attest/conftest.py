"""The run that these tests tell, and tell wrong."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

# Tests are no package: what they share is imported from its folder.
SUPPORT = str(Path(__file__).resolve().parent / "support")
if SUPPORT not in sys.path:
    sys.path.insert(0, SUPPORT)


@pytest.fixture(scope="session")
def tale() -> ModuleType:
    """Return the module `run_story`."""
    return importlib.import_module("run_story")
