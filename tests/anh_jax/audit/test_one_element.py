"""An elementwise update at one element is that of the whole update, and nothing else runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.audit.one_element import outputs_at
from anh_jax.audit.stranger_program import check_straight
from anh_jax.errors import ProgramError
from anh_jax.experiment_optimizers import AdamW, Lion, Momentum, Sgd
from anh_jax.program.export import export_program
from anh_jax.program.functions import update_function
from anh_jax.program.interpret import read_stored
from anh_jax.program.interpreter.operations import Program, make_block
from anh_jax.program.signature import Tensor
from anh_jax.program.tree import from_leaves, leaves_of
from anh_jax.training.optimizer import build_optimizer

SHAPES = {"kernel": (5, 3), "bias": (3,), "scale": ()}
RULES = (
    Sgd(learning_rate=0.1, weight_decay=0.1),
    Momentum(learning_rate=0.1, clip_norm=1.0),
    AdamW(learning_rate=0.1, weight_decay=0.01),
    Lion(learning_rate=0.1),
)
F32 = "float32"


@pytest.fixture(scope="module", params=RULES, ids=lambda config: type(config).__name__)
def update(request):
    """Return a stored update program, its arguments by path, and its outputs by path."""
    optimizer = build_optimizer(request.param)
    tensors = {name: Tensor(shape, F32) for name, shape in SHAPES.items()}
    slots = optimizer.init({name: jnp.zeros(shape) for name, shape in SHAPES.items()})
    kinds = {path: Tensor(x.shape, F32) for path, x in leaves_of(slots).items()}
    empty = () if kinds else ((),)
    scalars = {"globalNorm": F32, "finite": "uint32", "weight": F32}
    arguments = {
        "state": {
            "parameters": tensors,
            "optimizer": from_leaves(kinds, empty),
            "step": Tensor((), "uint32"),
        },
        "gradient": tensors,
        "scalars": {name: Tensor((), kind) for name, kind in scalars.items()},
        "constants": Tensor((len(optimizer.constants),), F32),
    }
    stored = export_program("update", update_function(optimizer), arguments)
    interpreted = read_stored(stored)
    draw = np.random.default_rng(0)

    def value(leaf):
        if leaf.dtype == "uint32":
            return jnp.uint32(1)
        return jnp.asarray(draw.uniform(0.1, 1, leaf.shape).astype(np.float32))

    given = {leaf.path: value(leaf) for leaf in stored.signature.inputs}
    trees = [
        from_leaves(
            {p[1:]: x for p, x in given.items() if p[0] == name},
            [p[1:] for p in stored.signature.empty_inputs if p[0] == name],
        )
        for name in stored.signature.arguments
    ]
    return stored.signature, interpreted.program, given, leaves_of(interpreted(*trees))


def at(array, element: int):
    array = np.asarray(array)
    return array.ravel()[element : element + 1].reshape((1,) * array.ndim)


def own_inputs(signature, given, name: str, element: int):
    """Return what one element's update takes: of its own tensors one element, scalars whole."""
    found = {}
    for place, leaf in enumerate(signature.inputs):
        if leaf.path[0] in ("scalars", "constants"):
            found[place] = np.asarray(given[leaf.path])
        elif leaf.path[-1] == name:
            found[place] = at(given[leaf.path], element)
    return found


@pytest.mark.parametrize(("name", "element"), [("kernel", 7), ("bias", 2), ("scale", 0)])
def test_one_element_is_that_of_the_whole_update(update, name, element) -> None:
    signature, program, given, whole = update
    wanted = [i for i, leaf in enumerate(signature.outputs) if leaf.path[-1] == name]
    found = outputs_at(program, own_inputs(signature, given, name, element), wanted)
    for place, value in zip(wanted, found, strict=True):
        expected = at(whole[signature.outputs[place].path], element)
        np.testing.assert_array_max_ulp(value, expected, 2)


def test_output_of_another_tensor_is_refused(update) -> None:
    signature, program, given, _ = update
    other = [i for i, x in enumerate(signature.outputs) if x.path == ("parameters", "bias")]
    with pytest.raises(ProgramError, match="another tensor"):
        outputs_at(program, own_inputs(signature, given, "kernel", 0), other)


@pytest.mark.parametrize(
    "mixing", [lambda x: x[::-1], lambda x: jnp.cumsum(x), lambda x: x * jnp.sum(x)]
)
def test_program_that_mixes_elements_is_refused(mixing) -> None:
    stored = export_program("mixed", lambda inputs: {"y": mixing(inputs["x"])},
                            {"inputs": {"x": Tensor((4,), F32)}})  # fmt: skip
    with pytest.raises((ProgramError, ValueError, TypeError)):
        found = outputs_at(read_stored(stored).program, {0: np.ones(1, np.float32)}, [0])
        # A reversal of one element is that element: the module's own check refuses it.
        from anh_jax.program.update_check import check_elementwise

        check_elementwise(stored)
        assert found is None


def test_program_of_too_many_calls_is_refused() -> None:
    """Twenty functions of a few bytes, each calling the next ten times, are 10^20 operators."""
    stored = export_program("calls", lambda inputs: {"y": jax.jit(jnp.sin)(inputs["x"])},
                            {"inputs": {"x": Tensor((), F32)}})  # fmt: skip
    program = read_stored(stored).program
    call = next(x for x in program.functions["main"].operations if "callee" in x.attributes)
    functions = {"f20": program.functions[call.attributes["callee"]]}
    for depth in range(19, -1, -1):
        operations = tuple(
            type(call)(call.name, (0,), (n + 1,), call.input_types, call.output_types,
                       {"callee": f"f{depth + 1}"}, ())
            for n in range(10)
        )  # fmt: skip
        functions[f"f{depth}"] = make_block((0,), call.input_types, operations, (10,))
    hostile = Program("calls", {"main": functions["f0"], **functions})
    with pytest.raises(ProgramError, match="too many"):
        check_straight(hostile)
    looped = {**functions, "f20": functions["f0"]}
    with pytest.raises(ProgramError, match="calls itself"):
        check_straight(Program("calls", {"main": functions["f0"], **looped}))
    check_straight(program)
