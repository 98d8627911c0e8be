"""What the programs rely on in every model, checked on each one shipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.program.signature import AXES
from anh_jax.program.tree import leaves_of, path_text

NAMES = ("mlp", "vision_transformer", "convolution", "language_model")


def batch_for(name, size):
    random = np.random.default_rng(2)
    if name == "language_model":
        return {"tokens": jnp.asarray(random.integers(0, 16, (size, 7)), jnp.int32)}
    return {
        "image": jnp.asarray(random.normal(size=(size, 8, 8)), jnp.float32),
        "label": jnp.asarray(random.integers(0, 10, size), jnp.int32),
    }


@pytest.fixture(scope="module")
def drawn(models):
    return {name: jax.jit(model.init)(jax.random.key(0)) for name, model in models.items()}


def keys_for(size):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(1), i))(jnp.arange(size))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_what_the_model_says(models, drawn, name):
    described = leaves_of(models[name].parameters)
    assert {path: (x.shape, x.dtype.name) for path, x in leaves_of(drawn[name]).items()} == {
        path: (tensor.shape, tensor.dtype) for path, tensor in described.items()
    }
    assert {tensor.dtype for tensor in described.values()} == {"float32"}
    used = {axis for tensor in described.values() for axes in tensor.spec for axis in axes}
    assert used <= set(AXES) and "fsdp" in used


@pytest.mark.parametrize("name", NAMES)
def test_an_example_does_not_see_its_neighbours(models, drawn, name):
    batch = batch_for(name, 4)
    apply = jax.jit(models[name].apply)
    for keys in (None, keys_for(4)):
        whole = apply(drawn[name], batch, keys=keys)
        neighbours = {field: jnp.concatenate([x[:1], x[1:] * 0]) for field, x in batch.items()}
        changed = apply(drawn[name], neighbours, keys=keys)
        assert np.array_equal(whole[0], changed[0])
        assert not np.array_equal(whole[1], changed[1])


@pytest.mark.parametrize("name", NAMES)
def test_no_parameter_has_a_gradient_of_rounding_noise(models, drawn, losses, name):
    batch = batch_for(name, 32)

    def total(parameters):
        return jnp.sum(losses[name](models[name].apply(parameters, batch, keys=None), batch).loss)

    gradient = leaves_of(jax.jit(jax.grad(total))(drawn[name]))
    sizes = {path: float(jnp.sqrt(jnp.mean(x**2))) for path, x in gradient.items()}
    largest = max(sizes.values())
    for path, size in sizes.items():
        assert size > 1e-4 * largest, path_text(path)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_start_near_even_odds(models, drawn, losses, name):
    batch = batch_for(name, 64)
    found = losses[name](models[name].apply(drawn[name], batch, keys=None), batch)
    even = np.log(16 if name == "language_model" else 10)
    assert 0.8 * even < float(jnp.mean(found.loss)) < 1.6 * even
    assert np.array_equal(found.total, np.full(64, 6 if name == "language_model" else 1))


def test_dropout_depends_on_the_example_key_alone(models, drawn):
    model, parameters = models["language_model"], drawn["language_model"]
    batch = batch_for("language_model", 4)
    keys = keys_for(4)
    trained = model.apply(parameters, batch, keys=keys)
    assert np.array_equal(trained, model.apply(parameters, batch, keys=keys))
    assert not np.array_equal(trained, model.apply(parameters, batch, keys=None))
    last = {name: x[3:] for name, x in batch.items()}
    alone = model.apply(parameters, last, keys=keys[3:])
    assert np.allclose(trained[3:], alone, atol=1e-5)


def test_a_position_predicts_from_what_comes_before_it(models, drawn):
    model, parameters = models["language_model"], drawn["language_model"]
    batch = batch_for("language_model", 1)
    later = {"tokens": batch["tokens"].at[0, 4].set((batch["tokens"][0, 4] + 1) % 16)}
    before, after = (model.apply(parameters, x, keys=None)[0] for x in (batch, later))
    assert np.array_equal(before[:4], after[:4])
    assert not np.array_equal(before[4], after[4])


def test_a_vision_transformer_sees_where_a_patch_lies(models, drawn):
    model, parameters = models["vision_transformer"], drawn["vision_transformer"]
    image = jnp.zeros((1, 8, 8)).at[0, 0, 0].set(1.0)
    corner = model.apply(parameters, {"image": image}, keys=None)
    moved = {"image": jnp.roll(image, 4, axis=1)}
    opposite = model.apply(parameters, moved, keys=None)
    assert not np.allclose(corner, opposite)
