"""The shipped models in the bf16 classes: accepted by the class check, and they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.experiment_choices import LanguageModel, Mlp, VisionTransformer
from anh_jax.models.compute import FLOAT32, Compute, compute_of
from anh_jax.models.language_model import language_model
from anh_jax.models.losses import next_token_cross_entropy, softmax_cross_entropy
from anh_jax.models.mlp import mlp
from anh_jax.models.vision_transformer import vision_transformer
from anh_jax.program import functions
from anh_jax.program.class_check import check_class
from anh_jax.program.export import export_program
from anh_jax.program.load import load_program
from anh_jax.program.programs import example_tensors
from anh_jax.program.signature import Tensor
from anh_jax.program.tensors import KEY_DTYPE
from anh_jax.program.tree import Tree
from anh_jax.training.mesh import make_mesh
from attest.numerics_class import CLASSES

STEPS, BATCH = 6, 12
RANDOM = np.random.default_rng(1)
IMAGES = RANDOM.normal(size=(BATCH, 4, 4)).astype(np.float32)
LABELS = (IMAGES.sum(axis=(1, 2)) > 0).astype(np.int32)
TOKENS = np.tile(np.arange(7, dtype=np.int32) % 3, (BATCH, 1))
EXAMPLES = {
    "mlp": {"image": IMAGES, "label": LABELS},
    "vision_transformer": {"image": IMAGES, "label": LABELS},
    "language_model": {"tokens": TOKENS},
}
SIZES = {"width": 8, "depth": 1, "heads": 2, "mlp_width": 16}


def built(name: str, compute: Compute):
    match name:
        case "mlp":
            return mlp(Mlp(hidden=(16,), classes=2), (4, 4), compute)
        case "vision_transformer":
            config = VisionTransformer(patch_size=2, classes=2, dropout=0.1, **SIZES)
            return vision_transformer(config, (4, 4), compute)
        case _:
            config = LanguageModel(vocabulary=4, sequence_length=6, dropout=0.1, **SIZES)
            return language_model(config, compute)


def losses_of_training(name: str, numerics: str) -> list[float]:
    rules = CLASSES[numerics]
    model = built(name, compute_of(rules))
    examples = (
        {"tokens": TOKENS} if name == "language_model" else {"image": IMAGES, "label": LABELS}
    )
    loss = next_token_cross_entropy() if name == "language_model" else softmax_cross_entropy()
    fields = {key: value[0] for key, value in examples.items()}
    arguments = {
        "state": {"parameters": model.parameters, "step": Tensor((), "uint32")},
        "examples": example_tensors(fields),
        "key": Tensor((), KEY_DTYPE),
    }
    stored = export_program(
        "gradient", functions.gradient_function(model, loss), arguments, rules=rules
    )
    check_class({"gradient": stored}, rules)
    gradient = load_program(stored, make_mesh())
    batch = {
        **examples,
        "id": np.arange(BATCH, dtype=np.uint32),
        "weight": np.ones(BATCH, np.float32),
    }
    parameters, found = model.init(jax.random.key(0)), []
    for step in range(STEPS):
        state = {"parameters": parameters, "step": jnp.uint32(step)}
        sums = gradient(state, batch, jax.random.key(1))
        found.append(float(sums["loss"]) / BATCH)
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(sums["gradient"]))
        parameters = jax.tree.map(lambda p, g: p - 0.5 / BATCH * g, parameters, sums["gradient"])
    return found


# How products round does not depend on the model, so the daily run trains one model that way.
@pytest.mark.parametrize(
    ("name", "numerics"),
    [
        ("mlp", "bf16"),
        ("vision_transformer", "bf16"),
        ("language_model", "bf16"),
        ("mlp", "bf16_f32acc"),
        pytest.param("vision_transformer", "bf16_f32acc", marks=pytest.mark.full),
        pytest.param("language_model", "bf16_f32acc", marks=pytest.mark.full),
    ],
)
def test_a_shipped_model_passes_the_class_check_and_its_loss_falls(
    name: str, numerics: str
) -> None:
    losses = losses_of_training(name, numerics)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0], losses


def test_classes_with_float32_storage_keep_activations_as_they_are() -> None:
    kinds = {name: compute_of(rules).storage for name, rules in CLASSES.items()}
    assert kinds.pop("bf16") == "bfloat16"
    assert set(kinds.values()) == {"float32"}
    text = str(jax.make_jaxpr(FLOAT32.keep)(jnp.ones(3)))
    assert "convert_element_type" not in text


@pytest.mark.parametrize("name", ["mlp", "vision_transformer", "language_model"])
def test_bf16_models_really_keep_bfloat16_between_operators(name: str) -> None:
    model = built(name, compute_of(CLASSES["bf16"]))
    parameters = model.init(jax.random.key(0))
    examples = jax.tree.map(jnp.asarray, EXAMPLES[name])

    def apply(parameters: Tree) -> jax.Array:
        return model.apply(parameters, examples, keys=None)

    text = str(jax.make_jaxpr(apply)(parameters))
    assert text.count("new_dtype=bfloat16") >= (2 if name == "mlp" else 8)
    assert jax.eval_shape(apply, parameters).dtype == jnp.float32
