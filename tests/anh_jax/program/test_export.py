import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import anh_jax
from anh_jax.errors import ProgramError
from anh_jax.program import stablehlo
from anh_jax.program.export import export_program
from anh_jax.program.load import load_program
from anh_jax.program.signature import Tensor
from anh_jax.training.mesh import make_mesh
from tests.anh_jax.program.interpreter.battery import PER_PLATFORM
from tests.anh_jax.program.interpreter.families import FAMILIES, whole

ROWS = Tensor(("b", 4), "float32")
SQUARE = Tensor((4, 4), "float32")

# Run in a copy of the source tree, with another hash seed, from another file and line.
ELSEWHERE = """


import jax.numpy as jnp
import jax

from anh_jax.experiment_choices import Mlp
from anh_jax.experiment_optimizers import AdamW
from anh_jax.models.losses import softmax_cross_entropy
from anh_jax.models.mlp import mlp
from anh_jax.program.programs import build_programs
from anh_jax.training.optimizer import build_optimizer

fields = {
    "image": jax.ShapeDtypeStruct((4, 4), jnp.float32),
    "label": jax.ShapeDtypeStruct((), jnp.int32),
}
programs = build_programs(
    mlp(Mlp(hidden=(16,), classes=10), (4, 4)),
    softmax_cross_entropy(),
    build_optimizer(AdamW(learning_rate=1e-2, weight_decay=0.01, clip_norm=1.0)),
    fields,
)
print(*sorted(programs.ids.items()))
"""


def total(x):
    return {"sum": jnp.sum(x)}


def operator_names(artifact: bytes) -> list[str]:
    with stablehlo.context():
        module = stablehlo.parse(artifact, where="test")
        return [operation.name for operation in stablehlo.operations(module)]


def test_a_moved_source_tree_and_another_hash_seed_give_the_same_bytes(mlp_programs, tmp_path):
    root = Path(anh_jax.__file__).parent.parent
    for room in ("anh_jax", "attest"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / room, tmp_path / "moved" / room, ignore=skip)
    script = tmp_path / "moved" / "deeper" / "script.py"
    script.parent.mkdir()
    script.write_text(ELSEWHERE)
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": str(tmp_path / "moved"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == " ".join(str(x) for x in sorted(mlp_programs.ids.items()))


def test_no_source_path_url_or_python_name_is_in_the_bytes(mlp_programs, lm_gradient):
    for stored in (*mlp_programs.stored.values(), lm_gradient.stored):
        assert not re.search(rb"[\w.]{2,}/[\w.]{2,}|https?:", stored.artifact), stored.name
        for data in (stored.artifact, stored.named):
            assert not re.search(rb"\.py\b|site-packages|anh_jax", data), stored.name
        assert b"result[" not in stored.artifact
        assert b"jit_" not in stored.artifact


def test_the_name_of_the_python_function_does_not_change_the_id():
    def renamed(x):
        return {"sum": jnp.sum(x)}

    first = export_program("f", total, {"x": ROWS})
    assert first.id == export_program("f", renamed, {"x": ROWS}).id
    assert first.id != export_program("g", total, {"x": ROWS}).id


def test_the_named_copy_keeps_operator_names_and_strips_to_the_artifact(lm_gradient):
    stored = lm_gradient.stored
    assert stored.named is not None
    assert b"dot_general" in stored.named
    with stablehlo.context():
        module = stablehlo.parse(stored.named, where="test")
        assert "bqhe,bkhe->bhqk" in module.operation.get_asm(enable_debug_info=True)
        stablehlo.strip_locations(module)
        assert stablehlo.serialise(module, stored.signature.stablehlo) == stored.artifact


def test_only_shape_assertions_call_out_and_one_function_is_public(mlp_programs, lm_gradient):
    for stored in (*mlp_programs.stored.values(), lm_gradient.stored):
        with stablehlo.context():
            module = stablehlo.parse(stored.artifact, where="test")
            assert stablehlo.public_functions(module) == ["main"]
            targets = {stablehlo.custom_call_target(x) for x in stablehlo.operations(module)}
        assert targets <= {None, "shape_assertion"}


def test_the_oldest_version_that_can_express_a_program_is_chosen():
    def accurate(x):
        return {"y": jax.lax.exp(x, accuracy=jax.lax.AccuracyMode.HIGHEST)}

    plain = export_program("f", total, {"x": ROWS})
    assert plain.signature.stablehlo == "1.8.0"
    assert plain.artifact.startswith(b"ML\xefR\rStableHLO_v1.8.0\0")
    newer = export_program("f", accurate, {"x": ROWS})
    assert newer.signature.stablehlo == "1.9.0"


def test_matrix_products_carry_their_precision():
    def product(x, y):
        return {"xy": x @ y}

    arguments = {"x": ROWS, "y": SQUARE}
    exact = export_program("f", product, arguments)
    loose = export_program("f", product, arguments, precision="default")
    assert exact.id != loose.id
    with stablehlo.context():
        text = str(stablehlo.parse(exact.artifact, where="test"))
        assert "precision = [HIGHEST, HIGHEST]" in text
        assert "HIGHEST" not in str(stablehlo.parse(loose.artifact, where="test"))


def test_a_program_that_depends_on_the_platform_is_refused_by_operator():
    def swayed(x):
        return {"y": jax.lax.platform_dependent(x, cuda=jnp.sin, tpu=jnp.cos, default=jnp.tan)}

    with pytest.raises(ProgramError, match=r"cuda and tpu lower to different.*stablehlo\.case"):
        export_program("f", swayed, {"x": ROWS})


@pytest.mark.parametrize("name", PER_PLATFORM)
def test_what_this_jax_lowers_for_each_platform_apart_is_refused(name):
    function, arguments = next(x[name] for x in FAMILIES.values() if name in x)
    tensors = {"x": Tensor(arguments[0].shape, "float32")}
    with pytest.raises(ProgramError, match="cuda and tpu lower to different modules, first at"):
        export_program("f", lambda x: {"y": function(x)}, tensors)


def test_a_cumulative_sum_by_an_associative_scan_is_stored_by_every_jax():
    def summed(x):
        return {"y": jax.lax.associative_scan(jnp.add, x)}

    stored = export_program("f", summed, {"x": SQUARE})
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_array_equal(load_program(stored, make_mesh())(x)["y"], np.cumsum(x, 0))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_models_are_made_of_is_written_at_the_oldest_version(family):
    stored, _, _ = whole(family)
    assert stored.signature.stablehlo == "1.8.0"


def test_operators_that_only_one_platform_has_are_refused_by_name():
    with pytest.raises(ProgramError, match="custom call 'cusolver_geqrf_ffi' is not in"):
        export_program("f", lambda x: {"q": jnp.linalg.qr(x)[0]}, {"x": SQUARE})


def test_generators_and_collectives_are_refused_by_name():
    def drawn(x):
        return {"y": x + jax.random.uniform(jax.random.key(0, impl="rbg"), (4, 4))}

    def summed(x):
        mesh = jax.sharding.get_abstract_mesh()
        spec = PartitionSpec("data")
        return {
            "y": jax.shard_map(
                lambda part: jax.lax.psum(part, "data"),
                mesh=mesh,
                in_specs=spec,
                out_specs=PartitionSpec(),
            )(x)
        }

    with pytest.raises(ProgramError, match=r"stablehlo\.rng_bit_generator depends on the machine"):
        export_program("f", drawn, {"x": SQUARE})
    with pytest.raises(ProgramError, match=r"operator (stablehlo\.all_reduce|sdy\.\w+) depends"):
        export_program("f", summed, {"x": SQUARE})


def test_calls_into_the_host_are_refused():
    def called(x):
        shape = jax.ShapeDtypeStruct((4, 4), jnp.float32)
        return {"y": jax.pure_callback(np.sin, shape, x)}

    with pytest.raises(ProgramError, match="cannot call Python"):
        export_program("f", called, {"x": SQUARE})


def test_a_function_that_needs_a_fixed_batch_is_refused():
    def halved(x):
        return {"y": jnp.sum(x.reshape(2, -1, 4), axis=1)}

    with pytest.raises(ProgramError, match="program f: cannot be exported.*Cannot divide"):
        export_program("f", halved, {"x": ROWS})


def test_an_output_size_computed_from_the_batch_is_refused():
    with pytest.raises(ProgramError, match=r"output y has a dimension of size 2\*b"):
        export_program("f", lambda x: {"y": jnp.concatenate([x, x])}, {"x": ROWS})


def test_outputs_other_than_dicts_of_arrays_are_refused():
    with pytest.raises(ProgramError, match="neither a dict nor an array"):
        export_program("f", lambda x: {"y": [x, x]}, {"x": ROWS})


def test_a_spec_for_no_output_is_refused():
    with pytest.raises(ProgramError, match="spec for z, which is no output"):
        export_program("f", total, {"x": ROWS}, output_specs={("z",): ()})


def test_arguments_that_a_program_ignores_stay_in_its_signature():
    def ignoring(x, unused):
        return {"sum": jnp.sum(x)}

    stored = export_program("f", ignoring, {"x": ROWS, "unused": {"y": SQUARE, "none": {}}})
    assert [leaf.text for leaf in stored.signature.inputs] == ["x", "unused/y"]
    assert stored.signature.empty_inputs == (("unused", "none"),)


def test_the_stored_program_holds_no_initialization(lm_gradient):
    names = operator_names(lm_gradient.stored.artifact)
    # Dropout draws bits; drawing floats would show as erf_inv or as a second generator.
    assert "chlo.erf_inv" not in names
    assert len(lm_gradient.stored.artifact) < 40_000


def test_exporting_leaves_jax_settings_as_they_were():
    before = jax.config.jax_traceback_in_locations_limit
    export_program("f", total, {"x": ROWS})
    with pytest.raises(ProgramError):
        export_program("f", lambda x: {"y": [x]}, {"x": ROWS})
    assert jax.config.jax_traceback_in_locations_limit == before
    assert jax.sharding.get_abstract_mesh().empty
