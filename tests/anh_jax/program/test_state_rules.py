import json

import msgspec
import pytest

from anh_jax.errors import ProgramError
from anh_jax.program.signature import Leaf
from anh_jax.program.state_rules import rules_bytes, state_rules


@pytest.fixture(scope="module")
def signatures(mlp_programs):
    return {name: mlp_programs.stored[name].signature for name in ("init", "gradient", "update")}


def replaced(signature, *, outputs=None, inputs=None):
    changes = {}
    if outputs is not None:
        changes["outputs"] = tuple(sorted(outputs, key=lambda leaf: leaf.path))
    if inputs is not None:
        changes["inputs"] = tuple(inputs)
    return msgspec.structs.replace(signature, **changes)


MEAN = Leaf(("statistics", "mean"), (4,), "float32", ((),))


def test_every_path_of_the_state_has_one_rule(signatures):
    rules = state_rules(**signatures)
    assert set(rules) == {leaf.text for leaf in signatures["init"].outputs}
    assert json.loads(rules_bytes(rules)) == rules


def test_a_path_that_no_program_writes_is_refused(signatures):
    init = replaced(
        signatures["init"],
        outputs=(*signatures["init"].outputs, Leaf(("mean",), (4,), "float32", ((),))),
    )
    with pytest.raises(ProgramError, match="state mean: claimed by no program"):
        state_rules(**{**signatures, "init": init})


def test_a_path_written_from_statistics_has_the_rule_gradient(signatures):
    init = replaced(
        signatures["init"],
        outputs=(*signatures["init"].outputs, Leaf(("mean",), (4,), "float32", ((),))),
    )
    gradient = replaced(signatures["gradient"], outputs=(*signatures["gradient"].outputs, MEAN))
    given = {**signatures, "init": init, "gradient": gradient}
    rules = state_rules(**given, statistics={("mean",): "mean"})
    assert rules["mean"] == "gradient"
    with pytest.raises(ProgramError, match="no forward statistic 'variance'"):
        state_rules(**given, statistics={("mean",): "variance"})


def test_a_path_that_two_programs_write_is_refused(signatures):
    gradient = replaced(signatures["gradient"], outputs=(*signatures["gradient"].outputs, MEAN))
    kernel = ("parameters", "layers", "0", "kernel")
    with pytest.raises(ProgramError, match="kernel: claimed by gradient and update"):
        state_rules(**{**signatures, "gradient": gradient}, statistics={kernel: "mean"})


def test_a_key_that_update_writes_is_refused(signatures):
    key = next(leaf for leaf in signatures["init"].outputs if leaf.path == ("key",))
    update = replaced(signatures["update"], outputs=(*signatures["update"].outputs, key))
    with pytest.raises(ProgramError, match="state key: claimed by copied and update"):
        state_rules(**{**signatures, "update": update})


def test_a_written_path_outside_the_state_is_refused(signatures):
    extra = Leaf(("optimizer", "extra"), (), "float32", ())
    update = replaced(signatures["update"], outputs=(*signatures["update"].outputs, extra))
    with pytest.raises(ProgramError, match="optimizer/extra: written, but no part of the state"):
        state_rules(**{**signatures, "update": update})


def test_programs_that_disagree_on_a_leaf_are_refused(signatures):
    first, *rest = signatures["update"].inputs
    other = msgspec.structs.replace(first, dtype="bfloat16")
    update = replaced(signatures["update"], inputs=(other, *rest))
    with pytest.raises(ProgramError, match="bfloat16.* in one program, float32.* in init"):
        state_rules(**{**signatures, "update": update})
