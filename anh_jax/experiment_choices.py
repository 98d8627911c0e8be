"""Config records for what the contract lets you choose by name: model, data, loss, optimizer.

Each choice is a tagged record: `name: mlp` picks the record, its other keys are that record's
fields. `import: package.module:function` with `options: {}` picks your own code instead. The
builders in `anh_jax.models`, `anh_jax.data` and `anh_jax.training` take these records as they are.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

ImportPath = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="Function to call, as package.module:function.",
    ),
]
Options = Annotated[
    dict[str, object],
    Meta(description="Keyword options handed to the imported function as they are."),
]
Location = Annotated[
    str,
    Meta(
        min_length=1,
        extra={"location": True},
        description="Where the data lie on this machine (a path; the data root, not the path, "
        "enters the contract).",
    ),
]
Width = Annotated[int, Meta(ge=1, le=2**20, description="Width of the residual stream, units.")]
Depth = Annotated[int, Meta(ge=1, le=4096, description="Transformer blocks.")]
Heads = Annotated[int, Meta(ge=1, le=4096, description="Attention heads; divides width.")]
MlpWidth = Annotated[int, Meta(ge=1, le=2**22, description="Hidden units of a block's MLP.")]
Dropout = Annotated[
    float, Meta(ge=0, lt=1, description="Share of activations dropped in training, 0 to 1.")
]
Classes = Annotated[int, Meta(ge=2, le=2**31, description="Classes the model tells apart.")]


class Mlp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="mlp", tag_field="name"):
    """Choose a multilayer perceptron over the flattened `image`."""

    hidden: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=2**22)], ...],
        Meta(description="Units of each hidden layer, first to last."),
    ] = (64, 128)
    classes: Classes = 10


class VisionTransformer(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag="vision_transformer",
    tag_field="name",
):
    """Choose a vision transformer over square patches of `image`."""

    patch_size: Annotated[
        int, Meta(ge=1, le=4096, description="Edge of a square patch, pixels.")
    ] = 2
    width: Width = 32
    depth: Depth = 2
    heads: Heads = 4
    mlp_width: MlpWidth = 64
    dropout: Dropout = 0.0
    classes: Classes = 10


class Convolution(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="convolution", tag_field="name"
):
    """Choose a convolutional net with ReLU and max pooling over `image`."""

    channels: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=2**20)], ...],
        Meta(min_length=1, description="Channels after each stage, which halves height and width."),
    ] = (8, 16)
    classes: Classes = 10


class LanguageModel(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag="language_model",
    tag_field="name",
):
    """Choose a decoder-only transformer over `tokens`."""

    vocabulary: Annotated[int, Meta(ge=2, le=2**31, description="Token values, 256 for bytes.")] = (
        256
    )
    sequence_length: Annotated[
        int, Meta(ge=1, le=2**20, description="Positions the model reads, tokens.")
    ] = 128
    width: Width = 64
    depth: Depth = 2
    heads: Heads = 4
    mlp_width: MlpWidth = 256
    dropout: Dropout = 0.0


class ImportedModel(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag="import",
    tag_field="name",
    rename={"path": "import"},
):
    """Build the model with a function of your own."""

    path: ImportPath
    options: Options = {}


ModelConfig = Mlp | VisionTransformer | Convolution | LanguageModel | ImportedModel


class Holdout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say which examples are kept out of training."""

    fraction: Annotated[
        float, Meta(ge=0, lt=1, description="Share of all examples held out, rounded down, 0 to 1.")
    ] = 0.2
    seed: Annotated[
        int, Meta(ge=0, le=2**53 - 1, description="Seed of the permutation that draws them.")
    ] = 0


class Digits(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="digits", tag_field="name"
):
    """Choose scikit-learn's 1,797 handwritten digits: `image` float32[8,8], `label` int32."""

    holdout: Annotated[Holdout, Meta(description="Examples kept out of training.")] = Holdout()


class PythonDocs(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="python_docs", tag_field="name"
):
    """Choose the text of `pydoc_data.topics` as bytes: `tokens` int32[sequence_length + 1]."""

    sequence_length: Annotated[
        int, Meta(ge=1, le=2**20, description="Tokens predicted per example.")
    ] = 128
    holdout: Annotated[Holdout, Meta(description="Examples kept out of training.")] = Holdout(
        fraction=0.1
    )


class TextFile(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text", tag_field="name"
):
    """Choose a file's bytes as text: `tokens` int32[sequence_length + 1]."""

    path: Location
    sequence_length: Annotated[
        int, Meta(ge=1, le=2**20, description="Tokens predicted per example.")
    ] = 128
    holdout: Annotated[Holdout, Meta(description="Examples kept out of training.")] = Holdout(
        fraction=0.1
    )


class Arrays(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="arrays", tag_field="name"
):
    """Choose arrays of your own: .npz files, or folders of .npy files (read in place)."""

    train: Location
    holdout: Location


class ImportedData(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag="import",
    tag_field="name",
    rename={"path": "import"},
):
    """Load the data with a function of your own that returns a `Source`."""

    path: ImportPath
    options: Options = {}


DataConfig = Digits | PythonDocs | TextFile | Arrays | ImportedData


class SoftmaxCrossEntropy(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag="softmax_cross_entropy",
    tag_field="name",
):
    """Choose cross entropy of the logits against the integer `label`, nats per example."""

    label_smoothing: Annotated[
        float, Meta(ge=0, lt=1, description="Probability mass spread over all classes, 0 to 1.")
    ] = 0.0


class NextTokenCrossEntropy(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag="next_token_cross_entropy",
    tag_field="name",
):
    """Choose cross entropy of each next token, mean over an example's positions, nats."""


class ImportedLoss(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag="import",
    tag_field="name",
    rename={"path": "import"},
):
    """Compute the loss with a function of your own."""

    path: ImportPath
    options: Options = {}


LossConfig = SoftmaxCrossEntropy | NextTokenCrossEntropy | ImportedLoss
