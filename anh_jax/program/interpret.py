"""Evaluates a stored program operator by operator, inside jax.

An exported program is opaque to jax: it has no derivative, cannot be mapped over, and shows nothing
of its inside. Here its StableHLO is read into plain data and evaluated by the jax function that
each operator stands for, so `jit`, `jvp` and `vmap` apply, a hook may look at or change any
operator, and every value on the way has a name. What is needed of MLIR is read once.

Two forms: the *stored* one, whose names depend on the stored bytes alone, and the *refined* one for
one batch size, made by jax's own pass, which under `jit` compiles to what the program itself
compiles to. Integers have 64 bits where the program says so; floating point never has.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.errors import ProgramError
from anh_jax.program.arguments import ProgramTrees
from anh_jax.program.interpreter.evaluation import Evaluation, Hook, Loops, Visit
from anh_jax.program.interpreter.operations import Operation, Program, TensorType
from anh_jax.program.interpreter.reading import refined_form, stored_form
from anh_jax.program.interpreter.recording import (
    Difference,
    Entry,
    Recorder,
    Recording,
    first_difference,
)
from anh_jax.program.interpreter.rules import RULES, check_operators
from anh_jax.program.signature import BATCH, Leaf, ProgramSignature, StoredProgram
from anh_jax.program.tensors import KEY_DTYPE
from anh_jax.program.tree import Tree

__all__ = [
    "Difference",
    "Entry",
    "Hook",
    "InterpretedProgram",
    "Loops",
    "Operation",
    "Program",
    "Recording",
    "TensorType",
    "Visit",
    "check_differentiable",
    "first_difference",
    "read_refined",
    "read_stored",
]


class InterpretedProgram:
    """A program that jax can look into.

    Attributes:
        signature: what it takes and gives.
        program: its operators as plain data.
    """

    def __init__(self, signature: ProgramSignature, program: Program) -> None:
        check_operators(program)
        self.signature = signature
        self.program = program
        self._trees = ProgramTrees(signature)

    def __call__(self, *arguments: Tree, around: Hook | None = None, loops: Loops = "scan") -> Tree:
        """Evaluate the program; pure, and traceable unless `loops` is `python`.

        `around(visit, inputs, default)` is shown each operator that has an operand which is not
        known on the host, and returns its outputs; `default(*inputs)` evaluates the operator.
        Operands known on the host are numpy arrays. `loops` runs counted loops as a scan, as a
        while loop, or in Python; other loops are while loops unless Python runs them.

        Raises:
            ProgramError: an argument does not fit the signature; an operator cannot be evaluated,
                or has no derivative though a tangent reaches it.
        """
        return self._evaluate(arguments, Evaluation(self.program, RULES, around, loops, None))

    def record(
        self,
        *arguments: Tree,
        loops: Loops = "scan",
        around: Hook | None = None,
        only: Callable[[str], bool] = lambda name: True,
    ) -> Recording:
        """Evaluate the program and keep the outputs of the operators that a hook is shown.

        `only` is asked with each operator's static name. Inside branches and loops of unknown
        length nothing is kept while jax traces, but what they return is. Raises as calling does.
        """
        recorder = Recorder(only)
        result = self._evaluate(arguments, Evaluation(self.program, RULES, around, loops, recorder))
        return Recording(result, tuple(recorder.layout), tuple(recorder.values))

    def _evaluate(self, arguments: tuple[Tree, ...], evaluation: Evaluation) -> Tree:
        leaves = self._trees.flatten(*arguments)
        self._check_batch(leaves)
        # Counters of random bits have 64 bits in the stored program, whatever the caller uses.
        with jax.enable_x64(True):
            outputs = evaluation.main(tuple(_words(x) for x in leaves))
            return self._trees.result(
                [_typed(leaf, x) for leaf, x in zip(self.signature.outputs, outputs, strict=True)]
            )

    def _check_batch(self, leaves: list[Any]) -> None:
        # A refined program has its batch written in every size.
        main = self.program.functions["main"]
        for leaf, kind, value in zip(
            self.signature.inputs, main.argument_types, leaves, strict=True
        ):
            if BATCH in leaf.shape:
                place = leaf.shape.index(BATCH)
                expected = kind.shape[place]
                if expected is not None and value.shape[place] != expected:
                    raise ProgramError(
                        f"program {self.signature.name}: refined for batch {expected}, called with"
                        f" {value.shape[place]}; read it for that batch"
                    )


def read_stored(stored: StoredProgram) -> InterpretedProgram:
    """Read a program as it is stored; it takes any batch size.

    Raises:
        ProgramError: the artifact is damaged or foreign, or holds an operator that the interpreter
            does not evaluate, which is named.
    """
    return InterpretedProgram(stored.signature, stored_form(stored))


def read_refined(stored: StoredProgram, *, batch: int | None) -> InterpretedProgram:
    """Read a program for one batch size, None where it takes no batch.

    Raises:
        ProgramError: as `read_stored`, or the batch does not fit.
    """
    return InterpretedProgram(stored.signature, refined_form(stored, batch))


def check_differentiable(interpreted: InterpretedProgram) -> None:
    """Refuse a program whose derivative along its floating-point inputs would silently be wrong.

    The derivative is traced for a batch of 2 (or the refined one) and nothing is computed.

    Raises:
        ProgramError: names the operator that a tangent reaches and that has no derivative.
    """
    main = interpreted.program.functions["main"]
    leaves = [
        jax.ShapeDtypeStruct(tuple(2 if n is None else n for n in kind.shape), kind.dtype)
        for kind in main.argument_types
    ]

    def tangent(*inputs: Any) -> Any:
        evaluation = Evaluation(interpreted.program, RULES, None, "scan", None)
        directions = tuple(_direction(x) for x in inputs)
        return jax.jvp(lambda *x: evaluation.main(x), inputs, directions)[1]

    with jax.enable_x64(True):
        jax.eval_shape(tangent, *leaves)


def _direction(value: Any) -> Any:
    if jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.ones_like(value)
    return np.zeros(value.shape, jax.dtypes.float0)


def _words(value: Any) -> Any:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(value)
    return jnp.asarray(value)


def _typed(leaf: Leaf, value: Any) -> Any:
    array = jnp.asarray(value)
    if leaf.dtype == KEY_DTYPE:
        return jax.random.wrap_key_data(array, impl="threefry2x32")
    return array
