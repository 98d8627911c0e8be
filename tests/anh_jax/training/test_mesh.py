import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from anh_jax.errors import ConfigError
from anh_jax.training.mesh import batch_sharding, make_mesh, place_examples


def test_every_mesh_has_three_automatic_axes():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert make_mesh().size == 1


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="data 2 x fsdp 4 x tensor 2 needs 16 devices, .* have 8"):
        make_mesh(data=2, fsdp=4, tensor=2)


def test_several_processes_must_use_all_devices(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="needs 4 devices, 2 process.es. have 8"):
        make_mesh(data=4)
    assert make_mesh(data=8).size == 8


def test_the_batch_is_split_over_both_data_axes_and_not_over_tensor():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    images = np.arange(32, dtype=np.float32).reshape(8, 4)
    placed = place_examples(mesh, {"image": images, "id": np.arange(8, dtype=np.uint32)})
    assert placed["image"].sharding == batch_sharding(mesh)
    assert {shard.data.shape for shard in placed["image"].addressable_shards} == {(2, 4)}
    assert np.array_equal(placed["image"], images)
    assert placed["id"].dtype == np.uint32


def test_each_process_places_its_own_rows_of_an_equal_batch(monkeypatch):
    mesh = make_mesh(data=8)
    rows = np.arange(16, dtype=np.float32)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    placed = place_examples(mesh, {"x": rows})["x"]
    assert placed.sharding == batch_sharding(mesh)
    assert np.array_equal(placed, rows)


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ConfigError, match="6 examples do not split over mesh data x fsdp = 4"):
        place_examples(make_mesh(data=4), {"x": np.zeros(6)})
