import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from jax.sharding import AxisType

import anh_jax
from anh_jax.errors import ProgramError
from anh_jax.program import stablehlo
from anh_jax.program.export import export_program
from anh_jax.program.load import load_program
from anh_jax.program.signature import Leaf, StoredProgram, Tensor
from anh_jax.program.storage import save_program
from anh_jax.training.mesh import make_mesh
from anh_jax.training.state import gradient_part, seed_words

# Nothing of the model is imported here: a stored program needs no Python of its author's.
REPLAY = """
import sys
from pathlib import Path

import jax
import numpy as np

from anh_jax.program.load import load_program
from anh_jax.program.storage import read_program
from anh_jax.program.tree import leaves_of, path_text
from anh_jax.training.mesh import make_mesh
from anh_jax.training.state import gradient_part, seed_words

directory = Path(sys.argv[1])
ids = dict(pair.split("=") for pair in sys.argv[2:])
programs = {
    name: load_program(read_program(directory, name, id=id), make_mesh())
    for name, id in ids.items()
}
batch = dict(np.load(directory / "batch.npz"))
state = programs["init"](seed_words(7))
outputs = programs["gradient"](gradient_part(state), batch, state["key"])
found = {path_text(path): np.asarray(x) for path, x in leaves_of(outputs).items()}
kept = {path_text(path): np.asarray(x) for path, x in leaves_of(state["parameters"]).items()}
np.savez(directory / "found.npz", **found)
np.savez(directory / "kept.npz", **kept)
"""


def flat(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def same_bits(left, right):
    return all(a.tobytes() == b.tobytes() for a, b in zip(flat(left), flat(right), strict=True))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh()


@pytest.fixture(scope="module")
def state(mlp_programs, mesh):
    return load_program(mlp_programs.stored["init"], mesh)(seed_words(7))


def replay(python, directory, programs, batch):
    exported = {name: programs.stored[name] for name in ("init", "gradient")}
    for stored in exported.values():
        save_program(stored, directory)
    np.savez(directory / "batch.npz", **batch)
    pairs = [f"{name}={stored.id}" for name, stored in exported.items()]
    done = subprocess.run(
        [python, "-c", REPLAY, str(directory), *pairs],
        env={**os.environ, "PYTHONPATH": str(Path(anh_jax.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(directory / "found.npz")), dict(np.load(directory / "kept.npz"))


def test_another_jax_loads_and_runs_the_stored_gradient(
    mlp_programs, digits_batch, mesh, state, tmp_path
):
    python = os.environ.get("ANH_SECOND_PYTHON")
    if not python:
        pytest.skip("no second interpreter: set ANH_SECOND_PYTHON to a python with another jax")
    found, kept = replay(python, tmp_path, mlp_programs, digits_batch(12))
    gradient = load_program(mlp_programs.stored["gradient"], mesh)
    mine = gradient(gradient_part(state), digits_batch(12), state["key"])
    assert same_bits(kept, dict(zip(kept, flat(state["parameters"]), strict=True)))
    # Two compilers, one program: they may fuse differently, so the last bits may differ.
    for name, value in zip(found, flat(mine), strict=True):
        scale = max(float(np.abs(value).max()), 1e-6)
        assert float(np.abs(found[name] - value).max()) <= 2e-6 * scale, name


def test_a_stored_gradient_needs_no_python_of_its_author(
    mlp_programs, digits_batch, mesh, state, tmp_path
):
    found, _ = replay(sys.executable, tmp_path, mlp_programs, digits_batch(12))
    gradient = load_program(mlp_programs.stored["gradient"], mesh)
    mine = gradient(gradient_part(state), digits_batch(12), state["key"])
    assert same_bits(found, dict(zip(found, flat(mine), strict=True)))


def test_state_0_has_the_same_bits_on_every_mesh(lm_init, mesh):
    seed = seed_words(3)
    alone = load_program(lm_init.stored, mesh)(seed)
    split = load_program(lm_init.stored, make_mesh(fsdp=4, tensor=2))(seed)
    assert same_bits(alone["parameters"], split["parameters"])
    assert not split["parameters"]["ends"]["embedding"].sharding.is_fully_replicated
    assert jnp.issubdtype(alone["key"].dtype, jax.dtypes.prng_key)
    assert str(alone["key"].dtype) == "key<fry>"


def test_update_gives_its_arguments_buffers_away_when_asked(mlp_programs, mesh, state):
    update = mlp_programs.stored["update"]
    scalars = {
        "globalNorm": jnp.float32(1),
        "finite": jnp.uint32(1),
        "weight": jnp.float32(1),
    }
    gradient = jax.tree.map(jnp.ones_like, state["parameters"])
    moving = {
        name: jax.tree.map(jnp.copy, state[name]) for name in ("parameters", "optimizer", "step")
    }
    constants = np.ones(4, np.float32)
    kept = load_program(update, mesh)(moving, gradient, scalars, constants)
    assert not any(x.is_deleted() for x in jax.tree.leaves(moving))
    donated = load_program(update, mesh, donate=(0,))(moving, gradient, scalars, constants)
    assert all(x.is_deleted() for x in jax.tree.leaves(moving))
    assert not any(x.is_deleted() for x in jax.tree.leaves(gradient))
    assert same_bits(kept, donated)


def test_any_batch_size_runs_from_one_stored_program(mlp_programs, digits_batch, mesh, state):
    gradient = load_program(mlp_programs.stored["gradient"], mesh)
    for size in (1, 7, 16):
        outputs = gradient(gradient_part(state), digits_batch(size), state["key"])
        assert float(outputs["weight"]) == size
        assert outputs["statistics"] == {}


def test_arguments_of_another_form_are_refused_by_leaf(mlp_programs, digits_batch, mesh, state):
    gradient = load_program(mlp_programs.stored["gradient"], mesh)
    part, key = gradient_part(state), state["key"]

    def refused(message, *arguments):
        with pytest.raises(ProgramError, match=message):
            gradient(*arguments)

    batch = digits_batch(4)
    refused("2 arguments, expected .state, examples, key.", part, batch)
    refused("no examples/label", part, {k: v for k, v in batch.items() if k != "label"}, key)
    refused("unknown examples/extra", part, {**batch, "extra": batch["id"]}, key)
    refused(
        r"examples/image is float32\[4,4,5\]",
        part,
        {**batch, "image": np.ones((4, 4, 5), "f4")},
        key,
    )
    refused(r"examples/label is int64\[4\]", part, {**batch, "label": np.ones(4, "i8")}, key)
    refused(
        r"examples/weight is float32\[3\], expected float32\[4\]",
        part,
        {**batch, "weight": np.ones(3, "f4")},
        key,
    )
    refused(r"key is uint32\[2\], expected key<fry>\[\]", part, batch, jax.random.key_data(key))
    refused("state/step is a int", {**part, "step": 0}, batch, key)
    refused("neither a dict nor an array", part, {**batch, "id": None}, key)
    refused("key 3 is not text", part, {**batch, 3: batch["id"]}, key)


def test_mappings_other_than_dict_are_taken(mlp_programs, digits_batch, mesh, state):
    gradient = load_program(mlp_programs.stored["gradient"], mesh)
    part, key = gradient_part(state), state["key"]
    batch = digits_batch(4)
    assert same_bits(
        gradient(part, batch, key), gradient(MappingProxyType(part), MappingProxyType(batch), key)
    )


def test_an_array_that_does_not_split_over_the_mesh_is_refused():
    spec = Tensor((6, 4), "float32", (("fsdp",), ()))
    stored = export_program("f", lambda x: {"y": x}, {"x": spec})
    with pytest.raises(ProgramError, match="x has a dimension of 6, .* fsdp = 4"):
        load_program(stored, make_mesh(fsdp=4))


def test_a_mesh_with_other_axes_is_refused(mlp_programs):
    other = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Auto,))
    with pytest.raises(ProgramError, match="expected .'data', 'fsdp', 'tensor'."):
        load_program(mlp_programs.stored["init"], other)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"module {}",
        lambda data: data[:-7],
        lambda data: data[:200] + bytes(1) + data[201:],
        lambda data: data.replace(b"StableHLO_v1.8.0", b"StableHLO_v9.9.9"),
        lambda data: bytes(len(data)),
    ],
)
def test_a_damaged_artifact_is_refused_in_one_line(mlp_programs, mesh, damage, capfd):
    stored = mlp_programs.stored["scalars"]
    damaged = StoredProgram(damage(stored.artifact), stored.signature)
    with pytest.raises(ProgramError, match="^program scalars: ") as refusal:
        load_program(damaged, mesh)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().err == ""


def test_an_artifact_under_another_signature_is_refused(mlp_programs, mesh):
    programs = mlp_programs.stored
    swapped = StoredProgram(programs["evaluate"].artifact, programs["init"].signature)
    with pytest.raises(ProgramError, match="main has .* inputs, signature 1"):
        load_program(swapped, mesh)
    init = programs["init"]
    step = next(leaf for leaf in init.signature.outputs if leaf.path == ("step",))
    wrong = Leaf(step.path, (), "int32", ())
    outputs = tuple(wrong if leaf == step else leaf for leaf in init.signature.outputs)
    mistyped = StoredProgram(
        init.artifact, msgspec.structs.replace(init.signature, outputs=outputs)
    )
    with pytest.raises(ProgramError, match=r"output step is tensor<ui32>, signature tensor<i32>"):
        load_program(mistyped, mesh)
    versioned = msgspec.structs.replace(init.signature, stablehlo="1.9.0")
    with pytest.raises(ProgramError, match="written as StableHLO 1.8.0"):
        load_program(StoredProgram(init.artifact, versioned), mesh)


def test_a_module_with_mesh_sizes_already_set_is_refused(lm_gradient, mesh):
    stored = lm_gradient.stored
    with stablehlo.context():
        module = stablehlo.parse(stored.artifact, where="test")
        stablehlo.set_mesh_sizes(module, {"data": 2, "fsdp": 1, "tensor": 1})
        changed = stablehlo.serialise(module, "1.8.0")
    with pytest.raises(ProgramError, match="sizes of 1"):
        load_program(StoredProgram(changed, stored.signature), mesh)


def test_setting_mesh_sizes_changes_nothing_else(lm_gradient):
    with stablehlo.context():
        module = stablehlo.parse(lm_gradient.stored.artifact, where="test")
        stablehlo.set_mesh_sizes(module, {"data": 2, "fsdp": 4, "tensor": 8})
        meshes = stablehlo.mesh_operations(module)
        assert [stablehlo.mesh_axes(x) for x in meshes] == [{"data": 2, "fsdp": 4, "tensor": 8}]
        stablehlo.set_mesh_sizes(module, {"data": 1, "fsdp": 1, "tensor": 1})
        assert stablehlo.serialise(module, "1.8.0") == lm_gradient.stored.artifact


def test_the_named_copy_runs_alike_and_a_foreign_one_is_refused(
    mlp_programs, digits_batch, mesh, state
):
    stored = mlp_programs.stored["gradient"]
    arguments = (gradient_part(state), digits_batch(8), state["key"])
    named = load_program(stored, mesh)
    bare = load_program(dataclasses.replace(stored, named=None), mesh)
    assert same_bits(named(*arguments), bare(*arguments))
    assert "dot_general" in named.lower(*arguments).as_text(debug_info=True).split("#loc", 1)[1]
    foreign = dataclasses.replace(stored, named=mlp_programs.stored["evaluate"].named)
    with pytest.raises(ProgramError, match="named copy is another program"):
        load_program(foreign, mesh)
    with pytest.raises(ProgramError, match="named copy: the bytes are not"):
        load_program(dataclasses.replace(stored, named=b"names"), mesh)


def test_arguments_are_checked_again_whenever_they_change(mlp_programs, digits_batch, mesh, state):
    gradient = load_program(mlp_programs.stored["gradient"], mesh)
    seen, batch = gradient_part(state), digits_batch(12)
    first = gradient(seen, batch, state["key"])
    for _ in range(2):
        with pytest.raises(ProgramError, match="weight"):
            gradient(seen, {**batch, "weight": batch["weight"].astype(np.float16)}, state["key"])
        with pytest.raises(ProgramError, match="expected an array"):
            gradient({**seen, "step": 1}, batch, state["key"])
        assert same_bits(gradient(seen, batch, state["key"]), first)
