"""What a configuration says of an example is what its source gives."""

from pathlib import Path

import numpy as np
import pytest

from anh_jax.data import fields
from anh_jax.data.fields import example_fields_of
from anh_jax.data.sources import load_source
from anh_jax.experiment_choices import Arrays, DataConfig, Digits, PythonDocs, TextFile


def same_as_loaded(config: DataConfig) -> None:
    train = load_source(config).train
    loaded = {name: (rows.shape[1:], rows.dtype) for name, rows in train.items()}
    told = example_fields_of(config)
    assert {name: (tuple(f.shape), f.dtype) for name, f in told.items()} == loaded


@pytest.mark.parametrize("config", [Digits(), PythonDocs(sequence_length=7)])
def test_fields_are_those_of_the_loaded_source(config: DataConfig) -> None:
    same_as_loaded(config)


def test_fields_of_files_are_those_of_the_loaded_source(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(bytes(range(64)))
    same_as_loaded(TextFile(path=str(text), sequence_length=5))
    stored = tmp_path / "some.npz"
    np.savez(stored, image=np.zeros((3, 4, 5), np.float16), label=np.zeros(3, np.int8))
    same_as_loaded(Arrays(train=str(stored), holdout=str(stored)))


def test_what_the_configuration_states_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fields, "load_source")
    gone = TextFile(path="no/such/file", sequence_length=5)
    for config in (Digits(), PythonDocs(), gone):
        assert example_fields_of(config)
