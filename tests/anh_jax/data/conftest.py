"""A small set of examples for the data tests."""

import numpy as np
import pytest


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """Return 37 examples of an image and a label."""
    generator = np.random.default_rng(0)
    return {
        "image": generator.integers(0, 17, (37, 3, 2)).astype(np.float32) / 16,
        "label": np.arange(37, dtype=np.int32) % 10,
    }
