import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from anh_jax.errors import ProgramError
from anh_jax.program.load import load_program
from anh_jax.program.programs import (
    NAMES,
    build_programs,
    checked_programs,
    example_tensors,
    read_programs,
    state_tensors,
)
from anh_jax.program.tree import leaves_of
from anh_jax.training.mesh import make_mesh
from anh_jax.training.state import gradient_part, moving_part, seed_words


@pytest.fixture(scope="module")
def loaded(mlp_programs):
    return {name: load_program(mlp_programs.stored[name], make_mesh()) for name in NAMES}


@pytest.fixture(scope="module")
def state(loaded):
    return loaded["init"](seed_words(11))


def largest_relative_difference(left, right):
    def difference(a, b):
        a, b = np.asarray(a), np.asarray(b)
        return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))

    return max(jax.tree.leaves(jax.tree.map(difference, left, right)))


def joined(parts):
    return jax.tree.map(lambda *x: sum(x[1:], start=x[0]), *parts)


def test_state_0_is_fresh_and_its_key_is_the_seed(loaded, mlp_model, optimizer):
    state = loaded["init"](seed_words(2**40 + 5))
    assert list(state) == ["key", "optimizer", "parameters", "step"]
    assert jax.random.key_data(state["key"]).tolist() == [2**8, 5]
    assert int(state["step"]) == 0
    assert all(not np.asarray(x).any() for x in jax.tree.leaves(state["optimizer"]))
    expected = leaves_of(state_tensors(mlp_model, optimizer))
    assert {path: x.shape for path, x in leaves_of(state).items()} == {
        path: tensor.shape for path, tensor in expected.items()
    }


def test_another_seed_gives_other_parameters(loaded, state):
    other = loaded["init"](seed_words(12))["parameters"]["layers"]["0"]["kernel"]
    assert not np.array_equal(other, state["parameters"]["layers"]["0"]["kernel"])


def test_the_gradient_is_the_sum_of_what_jax_and_optax_compute(
    loaded, state, mlp_model, digits_batch
):
    batch = digits_batch(12)
    batch["weight"] = np.linspace(0.5, 2, 12).astype(np.float32)
    batch = {name: jnp.asarray(values) for name, values in batch.items()}

    def loss(parameters):
        logits = mlp_model.apply(parameters, batch, keys=None)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return jnp.sum(each * batch["weight"])

    value, gradient = jax.value_and_grad(loss)(state["parameters"])
    outputs = loaded["gradient"](gradient_part(state), batch, state["key"])
    assert largest_relative_difference(outputs["gradient"], gradient) < 2e-6
    assert float(outputs["loss"]) == pytest.approx(float(value), rel=1e-6)
    assert float(outputs["weight"]) == pytest.approx(15.0)


def test_microbatches_add_up_to_the_whole_batch(lm_gradient, lm_init, tokens_batch):
    # With dropout: keys are folded from example ids, so a cut does not change the function.
    gradient = load_program(lm_gradient.stored, make_mesh())
    state = load_program(lm_init.stored, make_mesh())(seed_words(1))
    part, key = gradient_part(state), state["key"]
    whole = gradient(part, tokens_batch(64), key)
    parts = [gradient(part, tokens_batch(16, start=start), key) for start in range(0, 64, 16)]
    assert largest_relative_difference(joined(parts), whole) < 2e-6
    reordered = {name: x[::-1].copy() for name, x in tokens_batch(64).items()}
    assert largest_relative_difference(gradient(part, reordered, key), whole) < 2e-6


def test_dropout_follows_example_and_step(lm_gradient, lm_init, tokens_batch):
    gradient = load_program(lm_gradient.stored, make_mesh())
    state = load_program(lm_init.stored, make_mesh())(seed_words(1))
    part, key = gradient_part(state), state["key"]
    batch = tokens_batch(4)
    first = float(gradient(part, batch, key)["loss"])
    later = {**part, "step": jnp.uint32(1)}
    renamed = {**batch, "id": batch["id"] + np.uint32(100)}
    assert first != float(gradient(later, batch, key)["loss"])
    assert first != float(gradient(part, renamed, key)["loss"])
    assert first == float(gradient(part, batch, key)["loss"])


def test_padding_weighs_nothing(loaded, state, digits_batch):
    batch = digits_batch(6)
    padded = {
        name: np.concatenate([x, np.zeros((2, *x.shape[1:]), x.dtype)]) for name, x in batch.items()
    }
    bare = loaded["gradient"](gradient_part(state), batch, state["key"])
    with_padding = loaded["gradient"](gradient_part(state), padded, state["key"])
    assert float(with_padding["weight"]) == 6
    assert largest_relative_difference(with_padding, bare) < 2e-6
    counts = loaded["evaluate"](state["parameters"], padded)
    assert int(counts["total"]) == 6
    assert int(counts["correct"]) == int(loaded["evaluate"](state["parameters"], batch)["correct"])


def test_scalars_hold_the_norm_of_the_mean_gradient(loaded, state, digits_batch):
    outputs = loaded["gradient"](gradient_part(state), digits_batch(8), state["key"])
    scalars = loaded["scalars"](outputs)
    mean = jax.tree.map(lambda x: x / 8, outputs["gradient"])
    assert float(scalars["globalNorm"]) == pytest.approx(float(optax.tree.norm(mean)), rel=1e-5)
    assert int(scalars["finite"]) == 1
    assert float(scalars["weight"]) == 8


def test_a_batch_of_padding_alone_has_a_norm_of_zero_and_moves_nothing_far(loaded, state):
    batch = {
        "image": np.zeros((4, 4, 4), np.float32),
        "label": np.zeros(4, np.int32),
        "id": np.zeros(4, np.uint32),
        "weight": np.zeros(4, np.float32),
    }
    outputs = loaded["gradient"](gradient_part(state), batch, state["key"])
    scalars = loaded["scalars"](outputs)
    assert float(scalars["globalNorm"]) == 0 and int(scalars["finite"]) == 1
    moved = loaded["update"](
        moving_part(state), outputs["gradient"], scalars, np.float32([1e-2, 0.1, 0.001, 1])
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(moved["parameters"]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_step_that_is_not_finite_moves_only_the_counter(loaded, state, digits_batch, value):
    outputs = loaded["gradient"](gradient_part(state), digits_batch(8), state["key"])
    kernel = np.array(outputs["gradient"]["layers"]["0"]["kernel"])
    kernel[3, 3] = value
    outputs["gradient"]["layers"]["0"]["kernel"] = kernel
    scalars = loaded["scalars"](outputs)
    assert int(scalars["finite"]) == 0
    moving = moving_part(state)
    moved = loaded["update"](
        moving, outputs["gradient"], scalars, np.float32([1e-2, 0.1, 0.001, 1])
    )
    assert int(moved.pop("step")) == int(moving.pop("step")) + 1
    for left, right in zip(jax.tree.leaves(moved), jax.tree.leaves(moving), strict=True):
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def test_a_loss_that_is_not_finite_is_no_step(loaded, state, digits_batch):
    outputs = loaded["gradient"](gradient_part(state), digits_batch(8), state["key"])
    outputs["loss"] = jnp.float32(np.nan)
    assert int(loaded["scalars"](outputs)["finite"]) == 0


def test_what_was_found_by_reading_the_programs(mlp_programs):
    assert mlp_programs.init_kind == "exact"
    assert mlp_programs.rules["key"] == "copied"
    assert mlp_programs.rules["step"] == "counter"
    others = {rule for path, rule in mlp_programs.rules.items() if path not in ("key", "step")}
    assert others == {"update"}
    assert list(mlp_programs.ids) == list(NAMES)


def test_programs_come_back_from_a_directory_and_strangers_do_not(mlp_programs, tmp_path):
    mlp_programs.save(tmp_path)
    again = read_programs(tmp_path, mlp_programs.ids)
    assert again == mlp_programs
    mlp_programs.save(tmp_path)  # writing the same programs twice is no conflict
    wrong = {**mlp_programs.ids, "update": mlp_programs.ids["init"]}
    with pytest.raises(ProgramError, match="program update: the files in .* the contract names"):
        read_programs(tmp_path, wrong)
    (tmp_path / "scalars.stablehlo").unlink()
    with pytest.raises(ProgramError, match="program scalars: cannot be read"):
        read_programs(tmp_path, mlp_programs.ids)


def test_a_missing_program_and_a_swapped_one_are_refused(mlp_programs):
    stored = dict(mlp_programs.stored)
    with pytest.raises(ProgramError, match="contract programs: update is missing"):
        checked_programs({name: stored[name] for name in NAMES if name != "update"})
    with pytest.raises(ProgramError, match="operator .* is not elementwise"):
        checked_programs({**stored, "update": stored["evaluate"]})


def test_a_data_field_may_not_take_the_name_of_id_or_weight():
    with pytest.raises(ProgramError, match="data field 'weight': the name is taken"):
        example_tensors({"weight": jax.ShapeDtypeStruct((), jnp.float32)})


def test_statistics_of_a_loss_are_committed_as_weighted_sums(
    mlp_model, optimizer, digits_fields, digits_batch
):
    from anh_jax.models.losses import ExampleLosses, softmax_cross_entropy

    plain = softmax_cross_entropy()

    def with_statistics(logits, examples):
        losses = plain(logits, examples)
        return ExampleLosses(losses.loss, losses.correct, losses.total, {"logits": logits})

    programs = build_programs(mlp_model, with_statistics, optimizer, digits_fields)
    gradient = load_program(programs.stored["gradient"], make_mesh())
    state = load_program(programs.stored["init"], make_mesh())(seed_words(1))
    batch = digits_batch(5)
    batch["weight"] = np.float32([1, 2, 0, 1, 3])
    outputs = gradient(gradient_part(state), batch, state["key"])
    placed = {name: jnp.asarray(values) for name, values in batch.items()}
    logits = mlp_model.apply(state["parameters"], placed, keys=None)
    expected = np.asarray(logits).T @ batch["weight"]
    assert np.allclose(outputs["statistics"]["logits"], expected, rtol=1e-5, atol=1e-5)
    assert np.isfinite(
        float(load_program(programs.stored["scalars"], make_mesh())(outputs)["globalNorm"])
    )
