"""What a run would compute and commit, from its configuration alone: shapes, and no numbers.

Nothing is exported, compiled or trained, and data are loaded only where the configuration does not
state the shape of an example (arrays and imported sources).
"""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from anh_jax.data.fields import example_fields_of
from anh_jax.digest.digester import committed_outputs
from anh_jax.errors import ConfigError
from anh_jax.experiment import Experiment
from anh_jax.experiment_choices import ImportedModel, LanguageModel
from anh_jax.imported import load_function
from anh_jax.models.model import Model
from anh_jax.models.modules import model_from_nnx
from anh_jax.models.registry import build_loss, build_model
from anh_jax.program.products import product_flops
from anh_jax.program.programs import ProgramSource, program_sources, state_tensors
from anh_jax.program.signature import BATCH, Tensor
from anh_jax.program.tensors import KEY_DTYPE, abstract
from anh_jax.program.tree import Path, Tree, leaves_of
from anh_jax.training.optimizer import build_optimizer
from attest.digest_tree import encode_path
from attest.tensor_header import TensorHeader, TensorKind, tensor_header

# The convention of model FLOPs utilisation (PaLM, arXiv:2204.02311, appendix B): a backward pass
# costs two forward ones, and what is recomputed to save memory is not counted.
TRACED = "3 x the matrix products of the traced forward pass (attention's too)"
SIX = "6 for each parameter and example (the model is a module, no function to trace)"


@dataclass(frozen=True)
class PlannedRun:
    """Hold what a configuration fixes about each step of its run.

    Attributes:
        experiment: the configuration.
        state, gradient: headers of the tensors that are digested, sorted by path bytes.
        parameters: trainable numbers.
        tokens: positions a step sees; examples, where the model is no language model.
        flops: floating-point operations of one step over `tokens`.
        rule: how `flops` were found.
    """

    experiment: Experiment
    state: tuple[TensorHeader, ...]
    gradient: tuple[TensorHeader, ...]
    parameters: int
    tokens: int
    flops: int
    rule: str

    @property
    def unit(self) -> str:
        """Return what `tokens` counts."""
        return "tokens" if isinstance(self.experiment.model, LanguageModel) else "examples"


def plan_run(experiment: Experiment) -> PlannedRun:
    """Derive the shapes and the arithmetic of one step from a configuration.

    Raises AnhError where model, data, loss and optimizer do not fit together.
    """
    fields = example_fields_of(experiment.data)
    module = _module_class(experiment)
    model = _bare(module) if module is not None else build_model(experiment.model, fields)
    optimizer = build_optimizer(experiment.optimizer)
    parameters = sum(math.prod(tensor.shape) for tensor in leaves_of(model.parameters).values())
    batch = experiment.training.batch_size
    committed: Tree = {"gradient": model.parameters}
    flops, rule = 6 * parameters * batch, SIX
    if module is None:
        sources = program_sources(model, build_loss(experiment.loss), optimizer, fields)
        committed = committed_outputs(sources["scalars"].arguments["outputs"])
        flops, rule = 3 * _forward_flops(sources["evaluate"], batch), TRACED
    return PlannedRun(
        experiment=experiment,
        state=_headers(state_tensors(model, optimizer)),
        gradient=_headers(committed),
        parameters=parameters,
        tokens=batch * getattr(experiment.model, "sequence_length", 1),
        flops=flops,
        rule=rule,
    )


def _module_class(experiment: Experiment) -> Any:
    """Return the nnx module that a loop of one's own names as its model, or None."""
    if not isinstance(experiment.model, ImportedModel):
        return None
    found = load_function(experiment.model.path, key="model.import")
    return found if inspect.isclass(found) and issubclass(found, nnx.Module) else None


def _bare(module: Any) -> Model:
    """Return a model with a module's parameters; how it is called only its own loop knows."""
    try:
        return model_from_nnx(module.__name__, lambda rngs: module(rngs=rngs), lambda *_: None)
    except TypeError as error:
        raise ConfigError(
            f"model.import: {module.__module__}:{module.__name__}: {error}; it is made as "
            f"{module.__name__}(rngs=...), so name a function that returns the model instead"
        ) from error


def _forward_flops(evaluate: ProgramSource, batch: int) -> int:
    def sized(tensor: Tensor) -> jax.ShapeDtypeStruct:
        return abstract(tuple(batch if n == BATCH else n for n in tensor.shape), tensor.dtype)

    arguments = jax.tree.map(sized, list(evaluate.arguments.values()))
    return product_flops(evaluate.function, *arguments)


def _headers(tree: Tree) -> tuple[TensorHeader, ...]:
    headers = (_header(path, tensor) for path, tensor in leaves_of(tree).items())
    return tuple(sorted(headers, key=lambda header: encode_path(header.path)))


def _header(path: Path, tensor: Tensor) -> TensorHeader:
    shape = tuple(int(size) for size in tensor.shape)
    if tensor.dtype == KEY_DTYPE:
        return tensor_header(
            path, "uint32", (*shape, 2), kind=TensorKind.KEY, implementation="threefry2x32"
        )
    return tensor_header(path, tensor.dtype, shape)
