"""Builds the model and the loss that a configuration names.

Your own model: `model: {name: import, import: "package.module:function", options: {...}}`. The
function is called as `function(fields, **options)`, where `fields` maps each field of an example to
something with `shape` and `dtype`, and returns a `Model` (see `models.model_from_nnx`). Your own
loss: `function(**options)` returns a `Loss`.
"""

import inspect
from collections.abc import Mapping
from typing import Any, cast

from anh_jax.errors import ConfigError
from anh_jax.experiment_choices import (
    Convolution,
    ImportedLoss,
    ImportedModel,
    LanguageModel,
    LossConfig,
    Mlp,
    ModelConfig,
    NextTokenCrossEntropy,
    SoftmaxCrossEntropy,
    VisionTransformer,
)
from anh_jax.imported import load_function
from anh_jax.models.compute import FLOAT32, Compute
from anh_jax.models.convolution import convolution
from anh_jax.models.language_model import language_model
from anh_jax.models.losses import Loss, next_token_cross_entropy, softmax_cross_entropy
from anh_jax.models.mlp import mlp
from anh_jax.models.model import ExampleField, Model
from anh_jax.models.vision_transformer import vision_transformer


def build_model(
    config: ModelConfig, fields: Mapping[str, ExampleField], compute: Compute = FLOAT32
) -> Model:
    """Build the configured model for examples with these fields (shapes without the batch).

    `compute` is how the shipped models keep activations; an imported one decides for itself.

    Raises:
        ConfigError: the data lack a field the model reads, sizes do not fit, or the imported
            function is missing or returns something else.
    """
    match config:
        case Mlp():
            return mlp(config, _shape(fields, "image", "mlp"), compute)
        case VisionTransformer():
            image = _shape(fields, "image", "vision_transformer")
            return vision_transformer(config, image, compute)
        case Convolution():
            return convolution(config, _shape(fields, "image", "convolution"), compute)
        case LanguageModel():
            _check_tokens(config, _shape(fields, "tokens", "language_model"))
            return language_model(config, compute)
        case ImportedModel():
            _refuse_other_class(config.path)
            built = _call(config.path, "model", fields, options=config.options)
            if not isinstance(built, Model):
                raise ConfigError(
                    f"model.import: {config.path} returned a {type(built).__name__};"
                    " return an anh_jax.models.model.Model"
                )
            return built


def build_loss(config: LossConfig) -> Loss:
    """Build the configured loss.

    Raises:
        ConfigError: the imported function is missing or returns no function.
    """
    match config:
        case SoftmaxCrossEntropy():
            return softmax_cross_entropy(label_smoothing=config.label_smoothing)
        case NextTokenCrossEntropy():
            return next_token_cross_entropy()
        case ImportedLoss():
            built: Any = _call(config.path, "loss", options=config.options)
            if not callable(built):
                raise ConfigError(
                    f"loss.import: {config.path} returned a {type(built).__name__};"
                    " return a function of (predictions, examples)"
                )
            return cast(Loss, built)


def _refuse_other_class(path: str) -> None:
    # A class of modules would fail in the user's own code: our call hands over fields, no rngs.
    found: object = load_function(path, key="model.import")
    if isinstance(found, type) and not issubclass(found, Model):
        raise ConfigError(
            f"model.import: {path} is a class; name a function of the example's fields that returns"
            " an anh_jax.models.model.Model (anh_jax.models.modules.model_from_nnx makes one)"
        )


def _shape(fields: Mapping[str, ExampleField], name: str, model: str) -> tuple[int, ...]:
    if name not in fields:
        raise ConfigError(
            f"model.name: {model} reads {name!r}, the data have {', '.join(sorted(fields))};"
            " choose another model or other data"
        )
    return tuple(fields[name].shape)


def _check_tokens(config: LanguageModel, shape: tuple[int, ...]) -> None:
    if shape != (config.sequence_length + 1,):
        raise ConfigError(
            f"model.sequence_length: {config.sequence_length} needs examples of"
            f" {config.sequence_length + 1} tokens, the data have shape {shape}"
        )


def _call(path: str, group: str, *arguments: Any, options: Mapping[str, object]) -> Any:
    function = load_function(path, key=f"{group}.import")
    try:
        inspect.signature(function).bind(*arguments, **options)
    except TypeError as error:
        raise ConfigError(f"{group}.options: {path}: {error}") from error
    return function(*arguments, **options)
