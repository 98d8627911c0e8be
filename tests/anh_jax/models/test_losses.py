import jax.numpy as jnp
import numpy as np
import optax
import pytest

from anh_jax.models.losses import next_token_cross_entropy, softmax_cross_entropy

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
LABELS = jnp.asarray([0, 1, 2, 3, 4, 0], jnp.int32)


def test_cross_entropy_is_that_of_optax():
    found = softmax_cross_entropy()(LOGITS, {"label": LABELS})
    expected = optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS)
    assert np.allclose(found.loss, expected, rtol=1e-6)
    assert np.array_equal(found.correct, np.argmax(LOGITS, axis=1) == LABELS)
    assert found.correct.dtype == found.total.dtype == jnp.uint32
    assert np.array_equal(found.total, np.ones(6))


def test_smoothed_cross_entropy_is_that_of_optax():
    found = softmax_cross_entropy(label_smoothing=0.2)(LOGITS, {"label": LABELS})
    targets = optax.smooth_labels(jnp.eye(5)[LABELS], 0.2)
    assert np.allclose(found.loss, optax.softmax_cross_entropy(LOGITS, targets), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8])
def test_each_position_is_judged_by_the_token_that_follows(dtype):
    tokens = jnp.asarray([[0, 1, 2, 3]], dtype)
    sure = jnp.full((1, 3, 5), -50.0).at[0, jnp.arange(3), jnp.asarray([1, 2, 4])].set(50.0)
    found = next_token_cross_entropy()(sure, {"tokens": tokens})
    assert int(found.correct[0]) == 2 and int(found.total[0]) == 3
    assert float(found.loss[0]) == pytest.approx(100 / 3)
