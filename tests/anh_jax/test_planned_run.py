"""A planned run against the real one: the tensors it will commit, and its arithmetic."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from anh_jax.data.fields import example_fields_of
from anh_jax.digest.digester import committed_outputs
from anh_jax.digest.layout import lay_out
from anh_jax.errors import ConfigError
from anh_jax.experiment import Experiment, load_experiment
from anh_jax.models.registry import build_loss, build_model
from anh_jax.planned_run import SIX, TRACED, plan_run
from anh_jax.program.programs import program_sources, state_tensors
from anh_jax.program.tensors import KEY_DTYPE, dtype_of
from anh_jax.program.tree import Tree
from anh_jax.training.optimizer import build_optimizer

ROOT = Path(__file__).resolve().parents[2]


def experiment(name: str = "python_docs_lm", *overrides: str) -> Experiment:
    return load_experiment(ROOT / "configs" / f"{name}.yaml", overrides)


def zeros(tree: Tree) -> Tree:
    def one(tensor) -> jax.Array:
        if tensor.dtype == KEY_DTYPE:
            return jax.random.key(0, impl="threefry2x32")
        return jnp.zeros(tensor.shape, dtype_of(tensor.dtype))

    return jax.tree.map(one, tree)


@pytest.mark.parametrize("name", ["python_docs_lm", "digits"])
def test_planned_tensors_are_those_that_a_digest_finds(name: str) -> None:
    config = experiment(name)
    fields = example_fields_of(config.data)
    model, optimizer = build_model(config.model, fields), build_optimizer(config.optimizer)
    planned = plan_run(config)
    state = lay_out(zeros(state_tensors(model, optimizer))).layout
    assert planned.state == tuple(slot.header for slot in state.slots)
    sources = program_sources(model, build_loss(config.loss), optimizer, fields)
    outputs = zeros(sources["scalars"].arguments["outputs"])
    committed = lay_out(committed_outputs(outputs)).layout
    assert planned.gradient == tuple(slot.header for slot in committed.slots)
    assert planned.parameters == sum(x.size for x in jax.tree.leaves(outputs["gradient"]))


def test_arithmetic_of_a_large_transformer_is_that_of_the_usual_formula() -> None:
    """6 N T and 12 L d S T for attention (PaLM, arXiv:2204.02311, appendix B)."""
    length, width, depth = 2048, 2048, 16
    planned = plan_run(
        experiment(
            "python_docs_lm",
            f"model.sequence_length={length}",
            f"data.sequence_length={length}",
            f"model.width={width}",
            f"model.depth={depth}",
            "model.heads=16",
            "model.mlp_width=8192",
            "model.vocabulary=32768",
            "training.batch_size=128",
        )
    )
    tokens = 128 * length
    usual = 6 * planned.parameters * tokens + 12 * depth * width * length * tokens
    assert planned.tokens == tokens and planned.unit == "tokens" and planned.rule == TRACED
    assert planned.flops == pytest.approx(usual, rel=0.01)


def test_arithmetic_grows_with_the_batch() -> None:
    once, twice = (
        plan_run(experiment("digits", f"training.batch_size={size}")) for size in (64, 128)
    )
    assert twice.flops == 2 * once.flops and once.tokens == 64 and once.unit == "examples"


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "own_loop", raising=False)


def test_module_of_a_loop_of_ones_own_is_planned_by_its_parameters(examples: None) -> None:
    planned = plan_run(load_experiment(ROOT / "examples" / "own_loop.yaml"))
    assert planned.parameters == 64 * 128 + 128 + 128 * 10 + 10
    assert planned.flops == 6 * planned.parameters * 64 and planned.rule == SIX
    paths = {header.path for header in planned.state}
    assert ("optimizer", "velocity", "hidden", "kernel") in paths


def test_module_that_takes_more_than_keys_is_named(
    examples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wide_module.py").write_text(
        "from flax import nnx\n\n\nclass Wide(nnx.Module):\n"
        "    def __init__(self, width, rngs):\n        self.out = nnx.Linear(2, width, rngs=rngs)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (ROOT / "examples" / "own_loop.yaml").read_text()
    config = tmp_path / "wide.yaml"
    config.write_text(text.replace("own_loop:Classifier", "wide_module:Wide"))
    with pytest.raises(ConfigError, match="wide_module:Wide.*name a function that returns"):
        plan_run(load_experiment(config))
