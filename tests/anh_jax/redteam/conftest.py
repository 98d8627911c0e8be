"""One small contract for all attackers: its programs and checks are compiled once."""

from typing import Any

import pytest

from anh_jax.preparation import prepare
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.victims import DIGITS, victim

STEPS = 6


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the bench of a perceptron that trains for a few steps."""
    folder = tmp_path_factory.mktemp("redteam")
    config = folder / "digits.yaml"
    config.write_text(DIGITS)
    return RedTeamBench(prepare(victim(config, (f"training.steps={STEPS}",))), folder)
