"""The update of an optimizer that mixes elements is recorded and judged as a gradient is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.audit.operator import dispute
from anh_jax.audit.recording import FolderRecording, RecordingWriter, record, update_program_inputs
from anh_jax.audit.refutation import rules_of
from anh_jax.audit.update_end import CommittedUpdate
from anh_jax.bounds.update_stage import UpdateInputs
from anh_jax.digest.host import tree_digest
from anh_jax.experiment_optimizers import Adafactor
from anh_jax.program.export import export_program
from anh_jax.program.functions import update_function
from anh_jax.program.interpret import read_stored
from anh_jax.program.signature import Tensor
from anh_jax.program.tree import from_leaves, leaves_of
from anh_jax.training.optimizer import build_optimizer
from anh_jax.training.state import moved
from attest.keys import PrivateKey
from attest.numerics_class import CLASSES

STEP = 3
SHAPES = {"kernel": (8, 6), "bias": (6,)}
F32 = "float32"


@dataclasses.dataclass
class Update:
    program: object
    inputs: object
    committed: CommittedUpdate
    folder: object
    made: int = 0

    def record(self, fault=None) -> FolderRecording:
        self.made += 1
        folder = self.folder / str(self.made)
        with RecordingWriter(folder) as writer:
            record(self.program, self.inputs, writer, fault=fault)
            writer.finish(PrivateKey(bytes(32)), run="a" * 64, step=STEP, row="b" * 64,
                          program="c" * 64)  # fmt: skip
        return FolderRecording(folder)

    def follow(self, recording, **changes):
        committed = dataclasses.replace(self.committed, **changes)
        rules = CLASSES["f32"]
        return dispute(self.program, self.inputs, recording, committed, rules=rules)


@pytest.fixture(scope="module")
def update(tmp_path_factory) -> Update:
    """Return Adafactor's update of one step and the state that an honest device commits."""
    config = Adafactor(learning_rate=0.01, factored_from=2)
    optimizer = build_optimizer(config)
    draw = np.random.default_rng(0)
    parameters = {
        name: jnp.asarray(draw.normal(size=shape).astype(np.float32))
        for name, shape in SHAPES.items()
    }
    gradient = jax.tree.map(lambda x: x * np.float32(0.3), parameters)
    slots = jax.tree.map(lambda x: x + np.float32(0.1), optimizer.init(parameters))
    kinds = {path: Tensor(x.shape, F32) for path, x in leaves_of(slots).items()}
    tensors = {name: Tensor(shape, F32) for name, shape in SHAPES.items()}
    scalars = {"globalNorm": F32, "finite": "uint32", "weight": F32}
    arguments = {
        "state": {
            "parameters": tensors,
            "optimizer": from_leaves(kinds),
            "step": Tensor((), "uint32"),
        },
        "gradient": tensors,
        "scalars": {name: Tensor((), kind) for name, kind in scalars.items()},
        "constants": Tensor((len(optimizer.constants),), F32),
    }
    program = read_stored(export_program("update", update_function(optimizer), arguments))
    before = {
        "parameters": parameters,
        "optimizer": slots,
        "step": jnp.uint32(STEP - 1),
        "key": jax.random.key(0, impl="threefry2x32"),
    }
    row = optimizer.constants_table(8).values[STEP - 1].tolist()
    constants = dict(zip(optimizer.constants, row, strict=True))
    inputs = UpdateInputs(before, gradient, 4.0, 1.0, True, constants)
    taken = update_program_inputs(inputs, STEP, optimizer.constants)
    # As the trainer's compiler fuses it, in other bits than operator by operator.
    after = moved(before, jax.jit(program)(*taken.pieces[0]))
    root = tree_digest(after, step=STEP).root.hex()
    committed = CommittedUpdate(STEP, "blake3", root, before, after, CLASSES["f32"])
    return Update(program, taken, committed, tmp_path_factory.mktemp("updates"))


def test_honest_update_holds(update) -> None:
    found = update.follow(update.record())
    assert found.verdict == "holds", found.words
    assert found.compared > 50


@pytest.mark.parametrize("kind", ["reduce", "divide", "sqrt"])
def test_faulty_operator_of_an_update_is_refuted(update, kind) -> None:
    done = []

    def fault(visit, inputs, default):
        outputs = default(*inputs)
        if visit.operation.name != f"stablehlo.{kind}" or done:
            return outputs
        done.append(visit.name)
        return (outputs[0] * np.float32(1.001),)

    found = update.follow(update.record(fault))
    assert done and found.verdict == "refuted" and found.entry.name == done[0]


def test_update_that_ends_in_another_state_is_told(update) -> None:
    before, after = update.committed.before["parameters"], update.committed.after["parameters"]
    for share, verdict in ((1e-6, "holds"), (0.01, "elsewhere")):
        other = {name: new + share * (new - before[name]) for name, new in after.items()}
        state = {**update.committed.after, "parameters": other}
        root = tree_digest(state, step=STEP).root.hex()
        found = update.follow(update.record(), after=state, root=root)
        assert found.verdict == verdict, (share, found.words)


def test_other_bits_than_a_state_that_is_not_at_hand_decide_nothing(update) -> None:
    found = update.follow(update.record(), after=None, root="0" * 64)
    assert found.verdict == "undecided" and "not at hand" in found.words


def test_update_is_held_to_float32_in_every_class(honest, workshop) -> None:
    contract = workshop.materials.contract
    coarse = dataclasses.replace(contract, numerics=type(contract.numerics).of(CLASSES["bf16"]))
    unit = CLASSES["bf16"].roundoff.update
    rules = rules_of(coarse, coarse.programs.update)
    assert rules.roundoff.dot == rules.roundoff.reduce == rules.roundoff.elementwise == unit
    assert rules_of(coarse, coarse.programs.gradient) == coarse.numerics.rules
