"""The five programs of a contract, from a model, a loss and an optimizer.

init(seed) -> state
gradient({parameters, step}, examples, key) -> {gradient, statistics, loss, weight}
scalars(outputs of gradient) -> {globalNorm, finite, weight}
update({parameters, optimizer, step}, gradient, scalars, constants) -> the same three
evaluate(parameters, examples) -> {correct, total, loss}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

import jax

from anh_jax.errors import ProgramError
from anh_jax.models.axes import spec_of
from anh_jax.models.losses import Loss
from anh_jax.models.model import ExampleField, Model
from anh_jax.program import functions
from anh_jax.program.class_check import check_class
from anh_jax.program.export import export_program
from anh_jax.program.init_check import InitKind, init_kind
from anh_jax.program.signature import BATCH, Spec, StoredProgram, Tensor
from anh_jax.program.state_rules import Rule, state_rules
from anh_jax.program.storage import read_program, save_program
from anh_jax.program.tensors import KEY_DTYPE, abstract, dtype_name, tensor_like
from anh_jax.program.tree import Path, Tree, from_leaves, leaves_of
from anh_jax.program.update_check import UpdateKind, check_elementwise
from anh_jax.training.optimizer import Optimizer
from attest.numerics_class import CLASSES, ClassRules

NAMES = ("init", "gradient", "scalars", "update", "evaluate")
_SCALARS = {
    "globalNorm": Tensor((), "float32"),
    "finite": Tensor((), "uint32"),
    "weight": Tensor((), "float32"),
}


@dataclass(frozen=True)
class ContractPrograms:
    """Hold a contract's programs and what was found by reading them.

    Attributes:
        stored: the programs by name.
        rules: the one rule of each state path.
        init_kind: whether state 0 has the same bits on every backend.
    """

    stored: Mapping[str, StoredProgram]
    rules: Mapping[str, Rule]
    init_kind: InitKind

    @property
    def ids(self) -> dict[str, str]:
        """Return the programs' ids in hex, by name."""
        return {name: self.stored[name].id for name in NAMES}

    def save(self, directory: FilePath) -> None:
        """Write the programs' files.

        Raises:
            ProgramError: they cannot be written, or other programs lie there.
        """
        for name in NAMES:
            save_program(self.stored[name], directory)


def read_programs(
    directory: FilePath, ids: Mapping[str, str], *, update: UpdateKind = "elementwise"
) -> ContractPrograms:
    """Read a contract's programs, checked against its ids, its optimizer's kind and each other.

    Raises:
        ProgramError: a file is missing, damaged or another program's, or the rules do not hold.
    """
    stored = {name: read_program(directory, name, id=ids[name]) for name in NAMES}
    return checked_programs(stored, update=update)


def checked_programs(
    stored: Mapping[str, StoredProgram], *, update: UpdateKind = "elementwise"
) -> ContractPrograms:
    """Check programs against each other: an elementwise update, one rule for each state path.

    Of an optimizer of kind `bounded` the update may mix elements.

    Raises:
        ProgramError: names the program, operator or path.
    """
    if missing := sorted(set(NAMES) - set(stored)):
        raise ProgramError(f"contract programs: {missing[0]} is missing")
    if update == "elementwise":
        check_elementwise(stored["update"])
    signatures = {name: stored[name].signature for name in NAMES}
    rules = state_rules(signatures["init"], signatures["gradient"], signatures["update"])
    return ContractPrograms(stored, rules, init_kind(stored["init"]))


def build_programs(
    model: Model,
    loss: Loss,
    optimizer: Optimizer,
    fields: Mapping[str, ExampleField],
    *,
    rules: ClassRules = CLASSES["f32"],
) -> ContractPrograms:
    """Export the five programs for examples with these fields (shapes without the batch).

    `rules` are those of the contract's numerics class, which the programs are written in.

    Raises:
        ProgramError: a part cannot be stored, does not round as the class says, or the programs do
            not fit together.
    """
    sources = program_sources(model, loss, optimizer, fields)
    programs = checked_programs(
        {
            name: export_program(
                name,
                source.function,
                source.arguments,
                output_specs=source.output_specs,
                rules=rules,
            )
            for name, source in sources.items()
        },
        update=optimizer.kind,
    )
    check_class(programs.stored, rules)
    return programs


@dataclass(frozen=True)
class ProgramSource:
    """Hold what a program is exported from.

    Attributes:
        function: the pure function.
        arguments: trees of `Tensor` by argument name.
        output_specs: mesh axes of the outputs that are not replicated, by path.
    """

    function: Callable[..., Tree]
    arguments: Mapping[str, Tree]
    output_specs: Mapping[Path, Spec]


def program_sources(
    model: Model, loss: Loss, optimizer: Optimizer, fields: Mapping[str, ExampleField]
) -> dict[str, ProgramSource]:
    """Return the five functions and what they take, as `build_programs` exports them."""
    state = state_tensors(model, optimizer)
    parameters = model.parameters
    moving = {name: state[name] for name in ("parameters", "optimizer", "step")}
    seen = {"parameters": parameters, "step": state["step"]}
    examples = example_tensors(fields)
    gradient = functions.gradient_function(model, loss)
    sums = _gradient_tensors(gradient, parameters, seen, examples)
    constants = Tensor((len(optimizer.constants),), "float32")
    update_arguments = {
        "state": moving,
        "gradient": parameters,
        "scalars": _SCALARS,
        "constants": constants,
    }
    return {
        "init": ProgramSource(
            functions.init_function(model, optimizer),
            {"seed": Tensor((2,), "uint32")},
            _specs(state),
        ),
        "gradient": ProgramSource(
            gradient,
            {"state": seen, "examples": examples, "key": state["key"]},
            _specs(sums),
        ),
        "scalars": ProgramSource(functions.scalars, {"outputs": sums}, {}),
        "update": ProgramSource(
            functions.update_function(optimizer), update_arguments, _specs(moving)
        ),
        "evaluate": ProgramSource(
            functions.evaluate_function(model, loss),
            {"parameters": parameters, "examples": examples},
            {},
        ),
    }


def state_tensors(model: Model, optimizer: Optimizer) -> Tree:
    """Return the tree of `Tensor` of the state.

    Optimizer slots lie as their parameters do; slots of another shape are whole on every device.
    """
    parameters = leaves_of(model.parameters)
    abstract_parameters = {
        path: abstract(tensor.shape, tensor.dtype) for path, tensor in parameters.items()
    }
    slots = jax.eval_shape(optimizer.init, from_leaves(abstract_parameters))

    def spec(path: Path, shape: tuple[int, ...]) -> Spec:
        like = parameters.get(path[1:])
        return like.spec if like is not None and tuple(like.shape) == shape else ()

    placed = {
        path: tensor_like(value, spec(path, value.shape))
        for path, value in leaves_of(slots).items()
    }
    return {
        "key": Tensor((), KEY_DTYPE),
        "step": Tensor((), "uint32"),
        "parameters": model.parameters,
        "optimizer": from_leaves(placed),
    }


def example_tensors(fields: Mapping[str, ExampleField]) -> dict[str, Tensor]:
    """Return the tensors of a batch: the data's fields, each example's id and weight.

    Raises:
        ProgramError: the data have a field of their own called `id` or `weight`.
    """
    batch = spec_of(("batch",))

    def batched(shape: tuple[int, ...], dtype: str) -> Tensor:
        return Tensor((BATCH, *shape), dtype, (*batch, *((),) * len(shape)))

    tensors = {
        name: batched(tuple(field.shape), dtype_name(field.dtype)) for name, field in fields.items()
    }
    own = {functions.ID: batched((), "uint32"), functions.WEIGHT: batched((), "float32")}
    if taken := sorted(set(own) & set(tensors)):
        raise ProgramError(f"data field {taken[0]!r}: the name is taken; rename the field")
    return {**tensors, **own}


def _gradient_tensors(
    gradient: Callable[..., Tree], parameters: Tree, seen: Tree, examples: Mapping[str, Tensor]
) -> Tree:
    """Return the tensors of the sums: as the parameters, and what statistics the loss gives."""

    def one_example(tensor: Tensor) -> jax.ShapeDtypeStruct:
        return abstract(tuple(1 if n == BATCH else n for n in tensor.shape), tensor.dtype)

    shapes = jax.tree.map(one_example, [seen, dict(examples), Tensor((), KEY_DTYPE)])
    statistics = jax.eval_shape(gradient, *shapes)["statistics"]
    return {
        "gradient": parameters,
        "statistics": jax.tree.map(tensor_like, statistics),
        "loss": Tensor((), "float32"),
        "weight": Tensor((), "float32"),
    }


def _specs(tree: Tree) -> dict[Path, Spec]:
    return {path: tensor.spec for path, tensor in leaves_of(tree).items() if tensor.spec}
