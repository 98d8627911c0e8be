"""Against StableHLO's own reference interpreter, which jaxlib ships.

It runs in a child process: on operators it does not know it ends the process.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import anh_jax
from anh_jax.program.interpret import read_refined
from anh_jax.program.storage import save_program

REFERENCE = """
import sys
from pathlib import Path

import numpy as np
from jax._src.lib.mlir import ir
from jax._src.lib.mlir.dialects import hlo as reference

from anh_jax.program import stablehlo
from anh_jax.program.interpreter.bindings import refine

directory = Path(sys.argv[1])
arrays = np.load(directory / "inputs.npz")
with stablehlo.context():
    module = stablehlo.parse((directory / "update.stablehlo").read_bytes(), where="update")
    for operation in list(stablehlo.operations(module)):
        if operation.name == "sdy.sharding_constraint":
            operation.results[0].replace_all_uses_with(operation.operands[0])
            operation.erase()
    for operation in list(module.body.operations):
        if operation.operation.name == "sdy.mesh":
            operation.operation.erase()
    module = refine(module, where="update")
    inputs = []
    for name in sorted(arrays):
        array = arrays[name]
        kind = {"float32": "f32", "uint32": "ui32"}[array.dtype.name]
        shape = "".join(f"{n}x" for n in array.shape)
        text = f'dense<"0x{array.tobytes().hex()}"> : tensor<{shape}{kind}>'
        if array.size == 1:
            word = int(array.reshape(()).view(np.uint32))
            text = f"dense<{hex(word) if kind == 'f32' else word}> : tensor<{shape}{kind}>"
        inputs.append(ir.DenseElementsAttr(ir.Attribute.parse(text)))
    outputs = reference.eval_module(module, inputs)
    np.savez(
        directory / "outputs.npz",
        **{f"{i:03d}": np.array(x) for i, x in enumerate(outputs)},
    )
"""


def reference(directory: Path, stored, inputs):
    save_program(stored, directory)
    np.savez(directory / "inputs.npz", **{f"{i:03d}": x for i, x in enumerate(inputs)})
    root = str(Path(anh_jax.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", REFERENCE, str(directory)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.load(directory / "outputs.npz")
    return [found[name] for name in sorted(found)]


@pytest.mark.parametrize("model", ["mlp", "lm"])
def test_operator_by_operator_an_update_has_the_reference_interpreters_bits(cases, model, tmp_path):
    case = cases(model)["update"]
    inputs = [np.asarray(x) for x in jax.tree.leaves(case.arguments)]
    expected = reference(tmp_path, case.stored, inputs)
    found = jax.tree.leaves(read_refined(case.stored, batch=None)(*case.arguments))
    assert len(found) == len(expected) > 10
    for mine, theirs in zip(found, expected, strict=True):
        assert np.asarray(mine).tobytes() == theirs.tobytes()
