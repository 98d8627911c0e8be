"""What one example of a configured source looks like, without loading the source."""

from typing import Any

import jax
import numpy as np

from anh_jax.data.sources import load_source
from anh_jax.experiment_choices import DataConfig, Digits, PythonDocs, TextFile


def example_fields_of(config: DataConfig) -> dict[str, Any]:
    """Return shape and dtype of each field of one example, without the batch dimension.

    What the configuration states is taken from it. Arrays and imported data state it nowhere, so
    they are loaded; DataError and ConfigError as `load_source` says.
    """
    match config:
        case Digits():
            return {"image": _field(np.float32, 8, 8), "label": _field(np.int32)}
        case PythonDocs() | TextFile():
            return {"tokens": _field(np.int32, config.sequence_length + 1)}
        case _:
            train = load_source(config).train
            return {name: _field(rows.dtype, *rows.shape[1:]) for name, rows in train.items()}


def _field(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)
