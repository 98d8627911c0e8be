import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.errors import ProgramError
from anh_jax.experiment_choices import Mlp
from anh_jax.experiment_optimizers import Adafactor, AdamW, Lion, Momentum, Schedule, Sgd
from anh_jax.models.mlp import mlp
from anh_jax.program.export import export_program
from anh_jax.program.functions import scalars, update_function
from anh_jax.program.load import load_program
from anh_jax.program.programs import state_tensors
from anh_jax.program.signature import Tensor
from anh_jax.program.tree import leaves_of
from anh_jax.program.update_check import check_elementwise
from anh_jax.training.factored import factored_init, factored_point
from anh_jax.training.mesh import make_mesh
from anh_jax.training.optimizer import build_optimizer

STEPS = 20
COSINE = Schedule(kind="cosine", final_fraction=0.1)
RATE = optax.cosine_decay_schedule(0.05, STEPS, alpha=0.1)
FOUR = {
    "sgd": (
        Sgd(learning_rate=0.05, schedule=COSINE),
        optax.sgd(RATE),
    ),
    "momentum": (
        Momentum(learning_rate=0.05, schedule=COSINE, decay=0.8),
        optax.sgd(RATE, momentum=0.8),
    ),
    "adamw": (
        AdamW(learning_rate=0.05, schedule=COSINE, beta2=0.99, weight_decay=0.1),
        optax.adamw(RATE, b2=0.99, weight_decay=0.1),
    ),
    "lion": (
        Lion(learning_rate=0.05, schedule=COSINE, weight_decay=0.1),
        optax.lion(RATE, weight_decay=0.1),
    ),
}
# `a` has rows and columns, `b/c` has neither.
FACTORED = Adafactor(learning_rate=0.05, schedule=COSINE, factored_from=3)
ALL = {
    **FOUR,
    "adafactor": (
        FACTORED,
        optax.adafactor(RATE, min_dim_size_to_factor=3, multiply_by_parameter_scale=False),
    ),
}


def start():
    random = np.random.default_rng(0)
    return {
        "a": jnp.asarray(random.normal(size=(4, 3)), jnp.float32),
        "b": {"c": jnp.asarray(random.normal(size=(5,)), jnp.float32)},
    }


def gradients():
    random = np.random.default_rng(1)
    for _ in range(STEPS):
        yield {
            "a": jnp.asarray(random.normal(size=(4, 3)), jnp.float32),
            "b": {"c": jnp.asarray(3 * random.normal(size=(5,)), jnp.float32)},
        }


def close(left, right, tolerance):
    def differ(a, b):
        return float(np.abs(np.asarray(a) - np.asarray(b)).max())

    assert max(jax.tree.leaves(jax.tree.map(differ, left, right))) <= tolerance


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("clip", [None, 1.5])
def test_twenty_steps_are_those_of_optax(name, clip):
    config, reference = ALL[name]
    if clip is not None:
        config = type(config)(
            **{f: getattr(config, f) for f in config.__struct_fields__} | {"clip_norm": clip}
        )
        reference = optax.chain(optax.clip_by_global_norm(clip), reference)
    optimizer = build_optimizer(config)
    table = optimizer.constants_table(STEPS)
    assert table.names == optimizer.constants
    update = jax.jit(update_function(optimizer))
    state = {
        "parameters": start(),
        "optimizer": optimizer.init(start()),
        "step": jnp.uint32(0),
    }
    parameters, slots = start(), reference.init(start())
    for row, gradient in zip(table.values, gradients(), strict=True):
        # The programs see sums over a batch, here of weight 4.
        summed = jax.tree.map(lambda x: 4 * x, gradient)
        found = scalars({"gradient": summed, "loss": jnp.float32(1), "weight": jnp.float32(4)})
        state = update(state, summed, found, row)
        moved, slots = reference.update(gradient, slots, parameters)
        parameters = optax.apply_updates(parameters, moved)
    # Lion's sign doubles a step where a mean crosses zero by rounding; these draws do not.
    close(state["parameters"], parameters, 3e-6)
    assert int(state["step"]) == STEPS


def exported_update(optimizer):
    model = mlp(Mlp(hidden=(8,)), (2, 2))
    tensors = state_tensors(model, optimizer)
    one = Tensor((), "float32")
    arguments = {
        "state": {part: tensors[part] for part in ("parameters", "optimizer", "step")},
        "gradient": model.parameters,
        "scalars": {"globalNorm": one, "finite": Tensor((), "uint32"), "weight": one},
        "constants": Tensor((len(optimizer.constants),), "float32"),
    }
    return export_program("update", update_function(optimizer), arguments)


@pytest.mark.parametrize("name", FOUR)
def test_every_update_is_elementwise_on_the_module(name):
    optimizer = build_optimizer(FOUR[name][0])
    stored = exported_update(optimizer)
    check_elementwise(stored)
    assert optimizer.kind == "elementwise"
    load_program(stored, make_mesh(fsdp=8))


def test_the_factored_update_says_that_it_is_bounded_and_is_no_elementwise_one():
    optimizer = build_optimizer(FACTORED)
    stored = exported_update(optimizer)
    assert optimizer.kind == "bounded"
    with pytest.raises(ProgramError, match="is not elementwise"):
        check_elementwise(stored)
    load_program(stored, make_mesh(fsdp=8))


def test_factored_slots_are_a_row_and_a_column_and_are_whole_on_every_device():
    model = mlp(Mlp(hidden=(8,)), (2, 2))
    slots = state_tensors(model, build_optimizer(FACTORED))["optimizer"]
    assert set(slots) == {"row", "column", "full"}
    for slot, kept in (("row", 0), ("column", 1)):
        for path, tensor in leaves_of(slots[slot]).items():
            matrix = leaves_of(model.parameters)[path]
            assert tensor.shape == (matrix.shape[kept],)
            assert not any(tensor.spec)
    for path, tensor in leaves_of(slots["full"]).items():
        assert tensor == leaves_of(model.parameters)[path]


@given(
    values=st.lists(st.floats(-(2.0**50), 2.0**50, width=32), min_size=12, max_size=12),
    kept=st.floats(0, 0.9375, width=32),
)
def test_a_factored_update_is_finite_and_no_larger_than_its_limit(values, kept):
    gradient = {"a": jnp.asarray(values, jnp.float32).reshape(4, 3)}
    found = factored_point(
        FACTORED,
        gradient,
        factored_init(FACTORED, gradient),
        jnp.float32(kept),
        jnp.float32(1 - kept),
    )
    direction = np.asarray(found.direction["a"], np.float64)
    assert np.all(np.isfinite(direction))
    assert np.sqrt(np.mean(direction**2)) <= FACTORED.update_clip * (1 + 1e-5)


def test_a_gradient_below_the_threshold_is_not_clipped():
    config = Sgd(learning_rate=1.0, clip_norm=10.0)
    optimizer = build_optimizer(config)
    assert optimizer.constants == ("learningRate", "clipNorm")
    update = update_function(optimizer)
    gradient = jax.tree.map(jnp.ones_like, start())
    state = {"parameters": start(), "optimizer": {}, "step": jnp.uint32(3)}
    found = scalars({"gradient": gradient, "loss": jnp.float32(1), "weight": jnp.float32(1)})
    constants = jnp.asarray(optimizer.constants_table(1).values[0])
    moved = update(state, gradient, found, constants)
    close(moved["parameters"], jax.tree.map(lambda x: x - 1, start()), 1e-6)
    assert int(moved["step"]) == 4


def test_constants_hold_what_depends_on_the_step_and_nothing_else():
    table = build_optimizer(AdamW(learning_rate=0.5, clip_norm=2.0)).constants_table(3)
    assert table.names == ("learningRate", "firstCorrection", "secondCorrection", "clipNorm")
    expected = [[0.5, 1 - 0.9**t, 1 - 0.999**t, 2.0] for t in (1, 2, 3)]
    assert np.array_equal(table.values, np.float32(expected))


def test_slots_lie_as_their_parameters_do():
    model = mlp(Mlp(hidden=(8,)), (2, 2))
    tensors = state_tensors(model, build_optimizer(FOUR["adamw"][0]))
    for slot in ("first", "second"):
        assert tensors["optimizer"][slot] == tensors["parameters"]
    assert state_tensors(model, build_optimizer(FOUR["sgd"][0]))["optimizer"] == {}
