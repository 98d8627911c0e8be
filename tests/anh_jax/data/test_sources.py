"""Sources: fixed arrays, disjoint and repeatable splits, and one-line errors with the fix."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anh_jax.data.manifest import build_manifest
from anh_jax.data.sources import Source, load_source, split, windows_of_bytes
from anh_jax.errors import ConfigError, DataError
from anh_jax.experiment_choices import (
    Arrays,
    Digits,
    Holdout,
    ImportedData,
    PythonDocs,
    TextFile,
)

# scikit-learn's digits are one fixed file; another root means that this code changed them.
DIGITS_ROOT = "f7a9456922ebca0c57fc882d979a4bf5fdb97e30d3d54a60e86d8627b4a46c98"
DIGITS_HOLDOUT_ROOT = "31a577fe87ac8aa134c6665f98c17e2cf36130e953c05abd08dcfd546b088c74"


def test_digits_are_model_ready_and_committed_by_a_known_root() -> None:
    source = load_source(Digits())
    assert source.train["image"].shape == (1438, 8, 8)
    assert source.train["image"].dtype == np.dtype("<f4")
    assert source.train["label"].dtype == np.dtype("<i4")
    assert len(source.holdout["label"]) == 359
    sixteenths = source.train["image"] * 16
    assert np.array_equal(sixteenths, np.round(sixteenths))
    assert set(source.holdout["label"].tolist()) == set(range(10))
    assert build_manifest(source.train).root.hex() == DIGITS_ROOT
    assert build_manifest(source.holdout).root.hex() == DIGITS_HOLDOUT_ROOT
    assert source.description == "digits: 1438 examples, 359 held out"


def test_digits_come_from_scikit_learn_where_its_table_lies_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = np.arange(10 * 64, dtype=np.float64).reshape(10, 8, 8) % 17
    bunch = SimpleNamespace(images=images, target=np.arange(10))
    datasets = SimpleNamespace(load_digits=lambda: bunch)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "sklearn", SimpleNamespace(datasets=datasets))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", datasets)
    source = load_source(Digits(holdout=Holdout(fraction=0.5)))
    for arrays in (source.train, source.holdout):
        assert np.array_equal(arrays["image"] * 16, images[arrays["label"]])


def test_python_docs_are_windows_that_share_one_byte() -> None:
    source = load_source(PythonDocs(sequence_length=64))
    tokens = source.train["tokens"]
    assert tokens.shape[1:] == (65,)
    assert tokens.dtype == np.dtype("<i4")
    assert tokens.min() >= 0 and tokens.max() <= 255
    assert len(tokens) > 5000
    assert b"Python" in bytes(tokens.astype(np.uint8).tobytes())


@settings(deadline=None)
@given(text=st.binary(min_size=2, max_size=300), length=st.integers(1, 40))
def test_windows_predict_every_byte_but_the_first_once(text: bytes, length: int) -> None:
    if len(text) <= length:
        with pytest.raises(DataError, match="do not fill one window"):
            windows_of_bytes(text, length)
        return
    windows = windows_of_bytes(text, length)
    targets = windows[:, 1:].reshape(-1).astype(np.uint8).tobytes()
    assert targets == text[1 : 1 + len(targets)]
    assert len(text) - 1 - len(targets) < length
    assert np.array_equal(windows[1:, 0], windows[:-1, -1])


@settings(deadline=None)
@given(total=st.integers(1, 400), fraction=st.floats(0, 0.99), seed=st.integers(0, 2**53 - 1))
def test_split_keeps_every_example_once(total: int, fraction: float, seed: int) -> None:
    arrays = {"x": np.arange(total, dtype=np.int32)}
    source = split(arrays, Holdout(fraction=fraction, seed=seed), description="x")
    both = np.concatenate([source.train["x"], source.holdout["x"]])
    assert sorted(both.tolist()) == list(range(total))
    assert len(source.holdout["x"]) == int(fraction * total)


def test_split_follows_its_seed() -> None:
    arrays = {"x": np.arange(100, dtype=np.int32)}
    held = [
        split(arrays, Holdout(fraction=0.2, seed=seed), description="x").holdout["x"].tolist()
        for seed in (0, 0, 1)
    ]
    assert held[0] == held[1] != held[2]


def test_text_file_is_read_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "play.txt"
    path.write_bytes(bytes(range(256)) * 4)
    source = load_source(TextFile(path=str(path), sequence_length=15))
    assert source.train["tokens"].shape == (62, 16)
    assert source.holdout["tokens"].shape == (6, 16)


def test_npz_and_folder_of_npy_give_the_same_examples(tmp_path: Path) -> None:
    arrays = {"x": np.arange(12, dtype=">f4").reshape(4, 3), "y": np.arange(4, dtype=np.uint8)}
    np.savez(tmp_path / "a.npz", **arrays)
    (tmp_path / "folder").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "folder" / f"{name}.npy", array)
    paths = (str(tmp_path / "a.npz"), str(tmp_path / "folder"))
    source = load_source(Arrays(train=paths[0], holdout=paths[1]))
    assert build_manifest(source.train).root == build_manifest(source.holdout).root
    assert source.train["x"].dtype == np.dtype("<f4")


@pytest.mark.parametrize(
    ("train", "holdout", "message"),
    [
        ("no.npz", "good.npz", "No such file or directory; name a file that is there"),
        ("text.npz", "good.npz", "no .npz file or folder of .npy files of plain numbers"),
        ("objects.npz", "good.npz", "no .npz file or folder of .npy files of plain numbers"),
        ("empty", "good.npz", "data (training set): no arrays"),
        ("good.npz", "wide.npz", "hold-out set): array x: dtype float64 is not one of"),
        ("good.npz", "other.npz", "data: array x: training and hold-out sets differ"),
        ("none.npz", "good.npz", "data (training set): no examples; give at least one"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(
    tmp_path: Path, train: str, holdout: str, message: str
) -> None:
    np.savez(tmp_path / "good.npz", x=np.zeros((2, 3), np.float32))
    np.savez(tmp_path / "wide.npz", x=np.zeros((2, 3)))
    np.savez(tmp_path / "other.npz", x=np.zeros((2, 4), np.float32))
    np.savez(tmp_path / "none.npz", x=np.zeros((0, 3), np.float32))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("not a zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        load_source(Arrays(train=str(tmp_path / train), holdout=str(tmp_path / holdout)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_package_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError) as digits:
        load_source(Digits())
    assert str(digits.value) == (
        "data: digits: needs sklearn.datasets, which is not here; pip install 'anh-jax[train]'"
    )
    with pytest.raises(DataError, match="needs pydoc_data.topics, which is not here; use a"):
        load_source(PythonDocs())


MODULE = """
import numpy as np
from anh_jax.data.sources import Source
def good(rows):
    arrays = {"x": np.zeros((rows, 2), np.float32)}
    return Source(train=arrays, holdout=arrays, description="mine")
def wrong():
    return {"x": 1}
def broken():
    raise ValueError("first line\\nsecond")
"""


def test_own_function_gives_a_source_or_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_examples.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    source = load_source(ImportedData(path="my_examples:good", options={"rows": 3}))
    assert isinstance(source, Source)
    assert source.train["x"].shape == (3, 2)
    with pytest.raises(DataError, match=r"data.import: my_examples:wrong: returned dict; return"):
        load_source(ImportedData(path="my_examples:wrong"))
    with pytest.raises(DataError, match=r"raised ValueError: first line second$"):
        load_source(ImportedData(path="my_examples:broken"))
    with pytest.raises(DataError, match=r"raised TypeError: good\(\) missing"):
        load_source(ImportedData(path="my_examples:good"))
    with pytest.raises(ConfigError, match="my_examples has no function none"):
        load_source(ImportedData(path="my_examples:none"))
    with pytest.raises(ConfigError, match="put its folder on PYTHONPATH"):
        load_source(ImportedData(path="no_such_module:good"))
    with pytest.raises(ConfigError, match="importing it raised ZeroDivisionError"):
        load_source(ImportedData(path="my_broken:good"))
