"""Batches by step number: what a step sees is a function of the order, so nothing is to resume.

Grain reads ahead over that function in threads; it chooses nothing. Every example read is hashed
and compared with the manifest, so data that changed on disk stop the run with a named error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import SupportsIndex

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Int64

from anh_jax.data.examples import (
    Examples,
    checked_examples,
    example_count,
    iter_example_bytes,
)
from anh_jax.data.manifest import PADDING, Manifest, batch_root
from anh_jax.data.membership import Order
from anh_jax.errors import DataError
from attest import merkle

_READ_THREADS = 2
_BATCHES_AHEAD = 4


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows `start` (included) to `stop` (excluded) of every global batch."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One step's examples, or one host's rows of them, and what commits the whole batch.

    `examples` holds one row per example, `id` uint32 and `weight` float32 (0 marks padding) among
    them; `indices` (int64) and `root` are the global batch's, whatever rows `examples` has.
    """

    step: int
    examples: dict[str, np.ndarray]
    indices: Int64[np.ndarray, " batch_size"]
    root: bytes


class BatchReader:
    """Give the batch of any step; equal steps give equal bytes in every process."""

    def __init__(
        self,
        arrays: Examples,
        *,
        manifest: Manifest,
        seed: int,
        batch_size: int,
        rows: Rows | None = None,
    ) -> None:
        self._arrays = checked_examples(arrays, where="data")
        self._manifest = manifest
        self._rows = rows or Rows(0, batch_size)
        count = example_count(self._arrays)
        self.order = Order(seed=seed, batch_size=batch_size, examples=count)
        if count != len(manifest):
            raise DataError(
                f"data: {count} examples, but {len(manifest)} are committed; "
                "restore the data that the run was started with"
            )
        if not 0 <= self._rows.start < self._rows.stop <= batch_size:
            raise DataError(
                f"rows {self._rows.start} to {self._rows.stop} lie outside a batch of {batch_size}"
            )

    def batch_for_step(self, step: int) -> Batch:
        """Return the batch of a step, counted from 1.

        Raises DataError where an example read is not the one that the manifest commits.
        """
        indices = self.order.step(step)
        local = indices[self._rows.start : self._rows.stop]
        examples = {name: array[local] for name, array in self._arrays.items()}
        for row, data in enumerate(iter_example_bytes(examples)):
            if merkle.leaf_hash(data) != self._manifest.leaf(int(local[row])):
                raise DataError(
                    f"step {step}: example {local[row]} is not the one committed; "
                    "restore the data that the run was started with"
                )
        return Batch(
            step=step,
            examples=with_ids(examples, local),
            indices=indices,
            root=batch_root(self._manifest.leaf_hashes, indices),
        )

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the batches of steps `first` to `last` (both included), read ahead in threads."""
        if first < 1:
            raise DataError(f"step {first}: steps are counted from 1")
        if last < first:
            return
        import grain  # three seconds to import: only a run that trains pays them

        steps = grain.MapDataset.source(_Steps(self, first, last - first + 1))
        options = grain.ReadOptions(num_threads=_READ_THREADS, prefetch_buffer_size=_BATCHES_AHEAD)
        reading = iter(steps.to_iter_dataset(options))
        try:
            yield from reading
        finally:
            reading.close()


@dataclass(frozen=True, slots=True)
class _Steps:
    """Grain's random-access source whose record i is the batch of step `first + i`."""

    reader: BatchReader
    first: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: SupportsIndex) -> Batch:
        return self.reader.batch_for_step(self.first + index.__index__())


def with_ids(examples: Examples, indices: Int64[np.ndarray, " b"]) -> dict[str, np.ndarray]:
    """Add `id` and `weight` to a batch's arrays; a padding row (index -1) has id 0, weight 0."""
    real = indices != PADDING
    return {
        **examples,
        "id": np.where(real, indices, 0).astype(np.uint32),
        "weight": real.astype(np.float32),
    }


def evaluation_batches(arrays: Examples, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield a set in order in batches of one size; zeros of weight 0 fill the last."""
    checked = checked_examples(arrays, where="data (hold-out set)")
    total = example_count(checked)
    for start in range(0, total, batch_size):
        indices = np.arange(start, start + batch_size, dtype=np.int64)
        indices[indices >= total] = PADDING
        padding = int((indices == PADDING).sum())
        rows = {
            name: np.concatenate([part := array[start : start + batch_size], _zeros(part, padding)])
            for name, array in checked.items()
        }
        yield with_ids(rows, indices)


def local_rows(sharding: Sharding, batch_size: int) -> Rows:
    """Return the rows of a global batch that this process's devices hold under a sharding.

    Raises DataError where they are no single run of rows: then no process can read its own part.
    """
    slices = sharding.addressable_devices_indices_map((batch_size,)).values()
    parts = sorted({s[0].indices(batch_size)[:2] for s in slices if s is not None})
    stop = parts[0][0]
    for part in parts:
        if part[0] != stop:
            raise DataError(
                f"batch of {batch_size}: this process holds rows {parts}, no single run; "
                "order the mesh so that each process's devices are neighbours"
            )
        stop = part[1]
    return Rows(parts[0][0], stop)


def place_batch(examples: Examples, sharding: Sharding, batch_size: int) -> dict[str, jax.Array]:
    """Make global arrays of `batch_size` rows from each process's own rows.

    `sharding` splits the first axis of every array and nothing else.
    """
    import jax

    return {
        name: jax.make_array_from_process_local_data(
            sharding, array, (batch_size, *array.shape[1:])
        )
        for name, array in examples.items()
    }


def _zeros(like: np.ndarray, rows: int) -> np.ndarray:
    return np.zeros((rows, *like.shape[1:]), dtype=like.dtype)
