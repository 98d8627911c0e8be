"""Where examples come from: each source gives whole, model-ready sets for training and hold-out.

Text is cut into windows here (concatenate and chunk), images are scaled here: what a source gives
is what is hashed, and nothing outside the contract's programs touches an example afterwards.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Int32

from anh_jax.data.examples import checked_examples, example_count
from anh_jax.data.order import permute
from anh_jax.errors import AnhError, DataError
from anh_jax.experiment_choices import (
    Arrays,
    DataConfig,
    Digits,
    Holdout,
    ImportedData,
    PythonDocs,
    TextFile,
)
from anh_jax.imported import load_function


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Examples to train on and examples held out: arrays of one row per example."""

    train: Mapping[str, np.ndarray]
    holdout: Mapping[str, np.ndarray]
    description: str


def load_source(config: DataConfig) -> Source:
    """Load the examples that a config's `data` group names.

    Returns arrays sorted by name, little-endian, C-ordered. Raises DataError where a package or
    file is missing, or the arrays are no examples; ConfigError for an import that is not there.
    """
    match config:
        case Digits():
            source = _digits(config)
        case PythonDocs():
            text = _python_docs()
            source = _windows(text, config.sequence_length, config.holdout, "python_docs")
        case TextFile():
            text = _read(Path(config.path))
            source = _windows(text, config.sequence_length, config.holdout, config.path)
        case Arrays():
            source = _arrays(config)
        case ImportedData():
            source = _imported(config)
    return _checked(source)


def split(arrays: Mapping[str, np.ndarray], holdout: Holdout, *, description: str) -> Source:
    """Split a set by the run's own permutation: its last examples are held out.

    Of n examples floor(fraction * n) are held out, in the order of epoch 0 under the hold-out's
    seed. Raises DataError where that leaves none to train on.
    """
    total = example_count(arrays)
    held = int(holdout.fraction * total)
    if total - held < 1:
        raise DataError(f"data: {total} examples leave none to train on; add data")
    order = permute(np.arange(total), seed=holdout.seed, epoch=0, n=total)
    return Source(
        train={name: array[order[: total - held]] for name, array in arrays.items()},
        holdout={name: array[order[total - held :]] for name, array in arrays.items()},
        description=f"{description}: {total - held} examples, {held} held out",
    )


def windows_of_bytes(text: bytes, sequence_length: int) -> Int32[np.ndarray, "windows length"]:
    """Cut text into int32[windows, sequence_length + 1] byte values.

    Neighbours share one byte, so that every byte but the first is predicted once; what does not
    fill a last window is left out. Raises DataError for text shorter than one window.
    """
    count = (len(text) - 1) // sequence_length
    if count < 1:
        raise DataError(
            f"data: {len(text)} bytes of text do not fill one window of {sequence_length + 1}; "
            "give more text or lower data.sequence_length"
        )
    values = np.frombuffer(text, dtype=np.uint8)
    starts = np.arange(count) * sequence_length
    return values[starts[:, None] + np.arange(sequence_length + 1)].astype(np.int32)


def _digits(config: Digits) -> Source:
    table = _digits_table()
    # Sixteenths of small integers: exact in float32 on every machine.
    arrays = {
        "image": (table[:, :-1].reshape(-1, 8, 8) / 16).astype(np.float32),
        "label": table[:, -1].astype(np.int32),
    }
    return split(arrays, config.holdout, description="digits")


def _digits_table() -> np.ndarray:
    """Read the table that scikit-learn ships: 64 pixels of 0 to 16 and the digit, a row each.

    The file is read where it lies: importing scikit-learn takes four seconds of processor time,
    most of a run's start (measured), for a table of 100 kB.
    """
    spec = importlib.util.find_spec("sklearn")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="ascii") as stream:
                return np.loadtxt(stream, delimiter=",", dtype=np.int64)
    datasets = _package("sklearn.datasets", "digits", "pip install 'anh-jax[train]'")
    bunch = datasets.load_digits()
    return np.column_stack([bunch.images.reshape(-1, 64), bunch.target]).astype(np.int64)


def _python_docs() -> bytes:
    fix = "use a Python with its standard library whole, or data.name=text"
    topics: dict[str, str] = _package("pydoc_data.topics", "python_docs", fix).topics
    return "\n".join(topics[name] for name in sorted(topics)).encode("utf-8")


def _windows(text: bytes, sequence_length: int, holdout: Holdout, description: str) -> Source:
    arrays = {"tokens": windows_of_bytes(text, sequence_length)}
    return split(arrays, holdout, description=description)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        _missing(path, error)


def _arrays(config: Arrays) -> Source:
    train, holdout = _load_arrays(Path(config.train)), _load_arrays(Path(config.holdout))
    return Source(train, holdout, f"arrays: {config.train}, held out {config.holdout}")


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.is_dir():
            # Mapped, not read: a folder may hold more than memory.
            return {
                file.stem: np.load(file, mmap_mode="r", allow_pickle=False)
                for file in sorted(path.glob("*.npy"))
            }
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except OSError as error:
        _missing(path, error)
    except Exception as error:
        raise DataError(
            f"data: {path}: no .npz file or folder of .npy files of plain numbers ({error}); "
            "write it with numpy.savez"
        ) from error


def _imported(config: ImportedData) -> Source:
    function = load_function(config.path, key="data.import")
    try:
        source = function(**config.options)
    except AnhError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise DataError(f"data.import: {config.path}: raised {kind}: {error}") from error
    if not isinstance(source, Source):
        raise DataError(
            f"data.import: {config.path}: returned {type(source).__name__}; "
            "return anh_jax.data.sources.Source(train=..., holdout=..., description=...)"
        )
    return source


def _checked(source: Source) -> Source:
    train = checked_examples(source.train, where="data (training set)")
    holdout = checked_examples(source.holdout, where="data (hold-out set)")
    if example_count(train) == 0:
        raise DataError("data (training set): no examples; give at least one")
    kinds = [
        {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}
        for arrays in (train, holdout)
    ]
    for name in sorted({*train, *holdout}):
        if kinds[0].get(name) != kinds[1].get(name):
            raise DataError(
                f"data: array {name}: training and hold-out sets differ in dtype or shape; "
                "give both the same arrays"
            )
    return Source(train, holdout, source.description)


def _package(module: str, source: str, fix: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"data: {source}: needs {module}, which is not here; {fix}") from error


def _missing(path: Path, error: OSError) -> NoReturn:
    reason = error.strerror or str(error)
    raise DataError(f"data: {path}: {reason}; name a file that is there") from error
