"""Settings and fixtures that every test shares."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent

# Whoever runs the whole suite gets this many processes, or fewer on fewer cores. More would make
# the fixtures of a session more often than they save, and together they take some 7 GiB.
MOST_WORKERS = 4
# One Ray at a time, so one worker has these. They wait more than they work and are started first.
RAY = ("tests/launch/ray/", "tests/runs/test_ray_")
# Folders whose tests share fixtures that take longer to make than a file of tests takes to run.
TOGETHER = (
    "tests/anh_jax/audit/",
    "tests/anh_jax/program/interpreter/",
    "tests/anh_jax/redteam/",
    "tests/launch/audit/",
)

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Share the whole suite among processes; named files and folders run in this one (0)."""
    return 0 if config.option.file_or_dir else min(MOST_WORKERS, os.cpu_count() or 1)


class WholeFiles(LoadScopeScheduling):
    """Give a worker all tests that share fixtures: those of a file, or of some folders."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(RAY):
            return "ray"
        file = nodeid.split("::", 1)[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> WholeFiles:
    """Return who decides which worker runs what."""
    return WholeFiles(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start with Ray where workers share the tests; leave out the large counts unless asked for."""
    for item in items:
        if item.get_closest_marker("ray") and not item.nodeid.startswith(RAY):
            raise pytest.UsageError(f"{item.nodeid} starts Ray: name its file in RAY of {__file__}")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(RAY))
    if config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="large count; .ci/full runs it"))
