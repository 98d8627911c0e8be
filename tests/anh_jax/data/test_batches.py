"""Batches: a function of the step number, read ahead or not, whole or in each host's rows."""

import threading
import time
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anh_jax.data.batches import (
    Batch,
    BatchReader,
    Rows,
    evaluation_batches,
    local_rows,
    place_batch,
)
from anh_jax.data.manifest import batch_root, build_manifest
from anh_jax.data.order import examples_for_step
from anh_jax.errors import DataError

Arrays = dict[str, np.ndarray]


def reader(arrays: Arrays, rows: Rows | None = None) -> BatchReader:
    return BatchReader(arrays, manifest=build_manifest(arrays), seed=4, batch_size=8, rows=rows)


def equal(first: Batch, second: Batch) -> bool:
    return (
        (first.step, first.root) == (second.step, second.root)
        and first.indices.tolist() == second.indices.tolist()
        and sorted(first.examples) == sorted(second.examples)
        and all(
            array.dtype == second.examples[name].dtype
            and np.array_equal(array, second.examples[name])
            for name, array in first.examples.items()
        )
    )


def test_batch_holds_the_examples_of_the_order_with_ids_and_weights(arrays: Arrays) -> None:
    batch = reader(arrays).batch_for_step(6)
    indices = examples_for_step(4, 6, 8, 37)
    assert batch.indices.tolist() == indices.tolist()
    assert np.array_equal(batch.examples["image"], arrays["image"][indices])
    assert batch.examples["id"].dtype == np.uint32
    assert batch.examples["id"].tolist() == indices.tolist()
    assert batch.examples["weight"].dtype == np.float32
    assert batch.examples["weight"].tolist() == [1.0] * 8
    assert batch.root == batch_root(build_manifest(arrays).leaf_hashes, indices)


def test_reading_ahead_from_any_step_gives_the_batch_of_each_step(arrays: Arrays) -> None:
    read = reader(arrays)
    for first in (1, 7, 20):
        ahead = list(read.batches(first, 20))
        assert [batch.step for batch in ahead] == list(range(first, 21))
        assert all(equal(batch, read.batch_for_step(batch.step)) for batch in ahead)
    assert list(read.batches(21, 20)) == []
    with pytest.raises(DataError, match="counted from 1"):
        list(read.batches(0, 20))


def test_stopping_early_ends_the_reading_threads(arrays: Arrays) -> None:
    ahead = reader(arrays).batches(1, 1000)
    next(ahead)
    assert reading_threads()
    ahead.close()
    deadline = time.monotonic() + 10  # they finish the batch in hand first
    while reading_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert reading_threads() == []


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "grain" in thread.name]


def test_hosts_read_their_rows_and_know_the_root_of_the_whole_batch(arrays: Arrays) -> None:
    whole = reader(arrays).batch_for_step(5)
    parts = [reader(arrays, Rows(start, start + 2)).batch_for_step(5) for start in (0, 2, 4, 6)]
    assert {part.root for part in parts} == {whole.root}
    for name, array in whole.examples.items():
        assert np.array_equal(np.concatenate([part.examples[name] for part in parts]), array)


@pytest.mark.parametrize("name", ["image", "label"])
def test_example_changed_after_the_manifest_stops_the_run(arrays: Arrays, name: str) -> None:
    manifest = build_manifest(arrays)
    changed = {**arrays, name: arrays[name].copy()}
    index = int(examples_for_step(4, 3, 8, 37)[5])
    changed[name].view(np.uint8).reshape(37, -1)[index, 1] ^= 1
    read = BatchReader(changed, manifest=manifest, seed=4, batch_size=8)
    fine = [s for s in range(1, 10) if index not in examples_for_step(4, s, 8, 37)]
    assert [read.batch_for_step(step).step for step in fine] == fine
    message = f"step 3: example {index} is not the one committed"
    with pytest.raises(DataError, match=message):
        read.batch_for_step(3)
    with pytest.raises(DataError, match=message):
        list(read.batches(3, 9))


def test_set_of_another_size_than_committed_is_refused(arrays: Arrays) -> None:
    fewer = {name: array[:36] for name, array in arrays.items()}
    with pytest.raises(DataError, match="36 examples, but 37 are committed"):
        BatchReader(fewer, manifest=build_manifest(arrays), seed=4, batch_size=8)


@pytest.mark.parametrize("rows", [Rows(0, 9), Rows(4, 4), Rows(-1, 4)])
def test_rows_outside_the_batch_are_refused(arrays: Arrays, rows: Rows) -> None:
    with pytest.raises(DataError, match="outside a batch of 8"):
        reader(arrays, rows)


def test_evaluation_sees_each_example_once_and_pads_with_weight_zero(arrays: Arrays) -> None:
    batches = list(evaluation_batches(arrays, 10))
    assert {batch["image"].shape for batch in batches} == {(10, 3, 2)}
    weight = np.concatenate([batch["weight"] for batch in batches])
    assert weight.tolist() == [1.0] * 37 + [0.0] * 3
    for name, array in arrays.items():
        seen = np.concatenate([batch[name] for batch in batches])
        assert np.array_equal(seen[:37], array)
        assert not seen[37:].any()
    ids = np.concatenate([batch["id"] for batch in batches])
    assert ids.tolist() == [*range(37), 0, 0, 0]
    assert list(evaluation_batches({"x": np.zeros((0, 2), np.float32)}, 10)) == []


@dataclass(frozen=True)
class Held:
    """A sharding that says only which rows this process's devices hold."""

    parts: tuple[slice, ...]

    def addressable_devices_indices_map(self, shape: tuple[int, ...]) -> dict[int, tuple[slice]]:
        return {device: (part,) for device, part in enumerate(self.parts)}


def test_process_reads_the_single_run_of_rows_that_its_devices_hold() -> None:
    assert local_rows(Held((slice(4, 6), slice(6, 8), slice(4, 6))), 8) == Rows(4, 8)  # type: ignore[arg-type]
    assert local_rows(Held((slice(None),)), 8) == Rows(0, 8)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no single run"):
        local_rows(Held((slice(0, 2), slice(4, 6))), 8)  # type: ignore[arg-type]


def test_each_device_holds_its_rows_of_the_placed_batch(arrays: Arrays) -> None:
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 1, 2), ("data", "fsdp", "tensor"))
    sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    batch = reader(arrays, local_rows(sharding, 8)).batch_for_step(2)
    placed = place_batch(batch.examples, sharding, 8)
    assert sorted(placed) == ["id", "image", "label", "weight"]
    for name, array in batch.examples.items():
        assert placed[name].sharding.is_equivalent_to(sharding, array.ndim)
        assert np.array_equal(jax.device_get(placed[name]), array)
        for shard in placed[name].addressable_shards:
            assert shard.data.shape[0] == 4
            assert np.array_equal(jax.device_get(shard.data), array[shard.index])
