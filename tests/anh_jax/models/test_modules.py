import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from anh_jax.errors import ProgramError
from anh_jax.experiment_optimizers import Momentum
from anh_jax.models.losses import softmax_cross_entropy
from anh_jax.models.modules import blueprint, model_from_nnx
from anh_jax.program.load import load_program
from anh_jax.program.programs import build_programs
from anh_jax.program.tree import leaves_of
from anh_jax.training.mesh import make_mesh
from anh_jax.training.optimizer import build_optimizer
from anh_jax.training.state import gradient_part, seed_words


class Ordinary(nnx.Module):
    """What a user of flax writes, with more layers in a list than one digit can number."""

    def __init__(self, *, rngs):
        self.layers = nnx.List(nnx.Linear(8, 8, rngs=rngs) for _ in range(11))
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = x + nnx.relu(layer(x))
        return self.head(self.dropout(self.norm(x)))


class WithBatchNorm(nnx.Module):
    def __init__(self, *, rngs):
        self.norm = nnx.BatchNorm(8, rngs=rngs)


BATCH = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(5, 8)), jnp.float32)}


@pytest.fixture(scope="module")
def model():
    return model_from_nnx(
        "ordinary",
        lambda rngs: Ordinary(rngs=rngs),
        lambda module, example: module(example["x"]),
        axes={"head/kernel": ("embed", None)},
    )


@pytest.fixture(scope="module")
def parameters(model):
    return model.init(jax.random.key(3))


def test_parameters_are_named_by_attribute_in_text(model, parameters):
    names = list(parameters["layers"])
    assert names == sorted(str(index) for index in range(11))
    assert model.parameters["head"]["kernel"].spec == (("fsdp",), ())
    assert model.parameters["head"]["bias"].spec == ((),)


def test_the_model_computes_what_the_module_computes(model, parameters):
    module = Ordinary(rngs=nnx.Rngs(jax.random.key(3)))
    module.eval()
    assert np.allclose(model.apply(parameters, BATCH, keys=None), module(BATCH["x"]), atol=1e-6)


def test_dropout_is_keyed_by_example(model, parameters):
    keys = jax.random.split(jax.random.key(0), 5)
    whole = model.apply(parameters, BATCH, keys=keys)
    assert not np.allclose(whole, model.apply(parameters, BATCH, keys=None))
    assert not np.allclose(whole, model.apply(parameters, BATCH, keys=keys[::-1]))
    last = {"x": BATCH["x"][4:]}
    assert np.allclose(whole[4:], model.apply(parameters, last, keys=keys[4:]), atol=1e-6)


def test_a_blueprint_gives_back_the_parameters_it_was_merged_with(parameters):
    plan = blueprint(lambda rngs: Ordinary(rngs=rngs))
    module = plan.merge(parameters)
    for index in range(11):
        kernel = module.layers[index].kernel[...]
        assert np.array_equal(kernel, parameters["layers"][str(index)]["kernel"])


def test_a_module_with_statistics_over_the_batch_is_refused():
    with pytest.raises(
        ProgramError, match="WithBatchNorm: norm/mean is neither .* .batch norm. make"
    ):
        model_from_nnx("m", lambda rngs: WithBatchNorm(rngs=rngs), lambda module, example: example)


def test_an_ordinary_module_becomes_programs(model):
    fields = {
        "x": jax.ShapeDtypeStruct((8,), jnp.float32),
        "label": jax.ShapeDtypeStruct((), jnp.int32),
    }
    optimizer = build_optimizer(Momentum(learning_rate=0.1))
    programs = build_programs(model, softmax_cross_entropy(), optimizer, fields)
    # Flax draws with normal numbers, whose bits differ between backends.
    assert programs.init_kind == "class"
    state = load_program(programs.stored["init"], make_mesh())(seed_words(0))
    batch = {
        **BATCH,
        "label": jnp.zeros(5, jnp.int32),
        "id": jnp.arange(5, dtype=jnp.uint32),
        "weight": jnp.ones(5),
    }
    gradient = load_program(programs.stored["gradient"], make_mesh())
    outputs = gradient(gradient_part(state), batch, state["key"])
    assert all(np.asarray(x).any() for x in leaves_of(outputs["gradient"]).values())
