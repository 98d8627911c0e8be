"""Settings and fixtures that every test shares."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# One persistent compile cache for the whole session, also for the processes that tests start:
# most of a cold run's time on two cores is XLA compiling the same small programs again.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# The light client remembers logs; no test may write into the memory of whoever runs it.
os.environ["ANH_HOME"] = tempfile.mkdtemp(prefix="anh-home-")
atexit.register(shutil.rmtree, os.environ["ANH_HOME"], ignore_errors=True)

# On shared cores a single example may take seconds through no fault of its own.
hypothesis.settings.register_profile("shared-cores", deadline=None, print_blob=True)
hypothesis.settings.load_profile("shared-cores")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Return the folder of third-party conformance vectors, or skip."""
    named = os.environ.get("ANH_VECTORS")
    folder = Path(named) if named else ROOT.parent / "shared" / "vectors"
    if not folder.is_dir():
        pytest.skip("no conformance vectors here: set ANH_VECTORS to their folder")
    return folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the large counts unless they are asked for by marker."""
    if config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="large count; .ci/full runs it"))
