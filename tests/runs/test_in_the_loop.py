"""What attestation may not cost: donation stays legal, microbatches add up, resharding resumes."""

from pathlib import Path

import jax
import numpy as np
import pytest

from anh_jax.digest.host import tree_digest
from anh_jax.run_directory import RunDirectory
from anh_jax.workbench import MeshSizes, Workbench, read_materials

if jax.config.jax_num_cpu_devices < 8:
    jax.config.update("jax_num_cpu_devices", 8)


def test_the_old_state_is_given_up_although_it_was_digested(finished: RunDirectory) -> None:
    bench = Workbench(read_materials(finished), MeshSizes(), microbatch=None)
    state = bench.executor.initial_state(3)
    leaves = jax.tree.leaves(state["parameters"])
    tree_digest(state, step=0)
    outputs = bench.executor.gradient(state, bench.batch(1).pieces)
    bench.executor.update(state, outputs, bench.executor.scalars(outputs), 1)
    assert all(leaf.is_deleted() for leaf in leaves)


@pytest.mark.parametrize("sizes", [MeshSizes(), MeshSizes(data=2)])
def test_microbatches_add_up_to_the_batch(finished: RunDirectory, sizes: MeshSizes) -> None:
    materials = read_materials(finished)
    whole = Workbench(materials, sizes, microbatch=None)
    parts = Workbench(materials, sizes, microbatch=8)
    state = whole.executor.initial_state(3)
    one = whole.executor.gradient(state, whole.batch(1).pieces)
    four = parts.executor.gradient(state, parts.batch(1).pieces)
    assert len(parts.batch(1).pieces) == 4
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        # Sums in another order: measured 4e-7 of the largest element on this model.
        scale = float(np.abs(left).max())
        np.testing.assert_allclose(left, right, rtol=0, atol=4e-6 * max(scale, 1.0))


def test_state_zero_is_the_same_on_every_mesh(finished: RunDirectory) -> None:
    materials = read_materials(finished)
    meshes = (MeshSizes(), MeshSizes(data=2), MeshSizes(fsdp=2), MeshSizes(fsdp=2, tensor=2))
    roots = {
        tree_digest(Workbench(materials, sizes, microbatch=None).executor.initial_state(3), step=0)
        .root
        for sizes in meshes
    }  # fmt: skip
    assert len(roots) == 1


def test_other_data_than_the_contract_names_are_refused(
    finished: RunDirectory, tmp_path: Path
) -> None:
    import shutil

    from anh_jax.errors import AnhError

    copy = RunDirectory(tmp_path / "copy")
    shutil.copytree(finished.root, copy.root)
    leaves = copy.data / "training.leaves"
    damaged = bytearray(leaves.read_bytes())
    damaged[5] ^= 1
    leaves.write_bytes(bytes(damaged))
    with pytest.raises(AnhError, match="data root"):
        read_materials(copy)


def test_another_holdout_set_is_not_counted(finished: RunDirectory) -> None:
    import dataclasses

    from anh_jax.errors import DataError

    materials = read_materials(finished)
    easy = {name: array[:1].repeat(len(array), axis=0) for name, array in
            materials.source.holdout.items()}  # fmt: skip
    source = dataclasses.replace(materials.source, holdout=easy)
    bench = Workbench(dataclasses.replace(materials, source=source), MeshSizes(), microbatch=None)
    with pytest.raises(DataError, match="hold-out set"):
        bench.evaluate(bench.executor.initial_state(3)["parameters"])


@pytest.mark.parametrize("name", ["constants.f32", "gradient.stablehlo", "update.json"])
def test_a_changed_program_file_is_refused(
    finished: RunDirectory, tmp_path: Path, name: str
) -> None:
    import shutil

    from anh_jax.errors import AnhError

    copy = RunDirectory(tmp_path / "copy")
    shutil.copytree(finished.root, copy.root)
    path = copy.programs / name
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(AnhError):
        read_materials(copy)
