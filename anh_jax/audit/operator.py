"""Finds the operator at which a recording leaves what honest devices compute.

The challenger evaluates the program beside the recording, operator by operator. Where his result
has other bits, he takes the recorded one if it lies within the operator's worst-case bound, and
goes on from there: so every operator is judged from the recording's own values, and rounding that
is honest never adds up. What he holds in memory is one evaluation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import jax
import numpy as np
from numpy.typing import NDArray

from anh_jax.audit.leaf import check_operator
from anh_jax.audit.recording import (
    FolderRecording,
    StepInputs,
    added,
    array_of,
    iterations_of,
    value_of,
)
from anh_jax.audit.update_end import CommittedUpdate, end_of_update
from anh_jax.bounds.rounding import Backend, Excess
from anh_jax.bounds.statistic import Statistic, host_leaves, largest, same_bits
from anh_jax.digest.host import gradient_digest
from anh_jax.program.interpret import InterpretedProgram, Program, Visit
from anh_jax.program.tree import Path, Tree, path_text
from attest.numerics_class import ClassRules
from attest.recording import Entry, Value

Array = NDArray[Any]
Verdict = Literal["refuted", "contradicts", "elsewhere", "holds", "undecided", "opening needed"]


@dataclass(frozen=True)
class Leaf:
    """One recorded operator, opened and judged: its place in the recording and its values."""

    index: int
    entry: Entry
    operation: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    excess: Excess


@dataclass(frozen=True)
class Disputed:
    """What following a recording showed.

    Attributes:
        verdict: `refuted`: an operator's results leave its bound; `contradicts`: the recording is
            not one evaluation of the program at the committed state; `elsewhere`: it ends in
            another gradient than the row commits; `holds`; `undecided`: an operator whose bound is
            unknown; `opening needed`: the values of `entry` must be shown first.
        words: why, in one line.
        compared: operators compared so far; `rounded` of them gave other bits within their bound.
        entry: the operator it is about, if it is about one.
        leaf: the refuted operator, opened.
    """

    verdict: Verdict
    words: str
    compared: int
    rounded: int
    entry: Entry | None = None
    leaf: Leaf | None = None


@dataclass(frozen=True)
class Committed:
    """What the row of a recorded step commits about the gradient.

    `outputs` are the committed `gradient` and `statistics` where they are at hand. `tolerance` is
    what `end_tolerance` gives. `null_gradients` are the contract's: such a gradient is rounding and
    nothing else, so its distance over its norm says nothing.
    """

    step: int
    alg: str
    root: str
    outputs: Tree | None
    tolerance: float
    null_gradients: frozenset[str] = frozenset()

    def weighs(self, path: Path) -> bool:
        """Tell whether the distance of this output says anything."""
        return path[0] != "gradient" or path_text(path[1:]) not in self.null_gradients


class _Stop(Exception):
    def __init__(self, verdict: Verdict, words: str, entry: Entry, leaf: Leaf | None) -> None:
        super().__init__(words)
        self.verdict: Verdict = verdict
        self.words = words
        self.entry = entry
        self.leaf = leaf


def end_tolerance(rules: ClassRules, declared: float | None) -> float:
    """Return how far a recording's end may lie from the committed gradient, over its norm.

    That is the contract's cap, or the bound that the row declares where it is tighter: whoever
    declares a large one gains nothing, and one below the class's floor is read as the floor.
    """
    if declared is None:
        return rules.cap
    return min(rules.cap, max(declared, rules.c * rules.phi * rules.unit_roundoff))


def dispute(
    program: InterpretedProgram,
    inputs: StepInputs,
    recording: FolderRecording,
    committed: Committed | CommittedUpdate,
    *,
    rules: ClassRules,
) -> Disputed:
    """Follow a recording to its first operator that is not honest, or to its end."""
    walk = _Walk(program.program, recording, rules)
    outputs: list[Tree] = []
    try:
        for piece, arguments in enumerate(inputs.pieces):
            outputs.append(program(*arguments, around=walk.following(piece), loops="python"))
    except _Stop as stop:
        return Disputed(
            stop.verdict, stop.words, walk.compared, walk.rounded, stop.entry, stop.leaf
        )
    if walk.compared != len(recording.entries):
        words = f"it has {len(recording.entries):,} entries, the program {walk.compared:,}"
        return Disputed("contradicts", words, walk.compared, walk.rounded)
    end = end_of_update if isinstance(committed, CommittedUpdate) else _end
    verdict, words = end(added(outputs), cast(Any, committed))
    return Disputed(verdict, words, walk.compared, walk.rounded)


class _Walk:
    """Follows a recording's entries; counts the operators compared and those rounded otherwise."""

    def __init__(self, program: Program, recording: FolderRecording, rules: ClassRules) -> None:
        self._program = program
        self._recording = recording
        self._rules = rules
        self.compared = 0
        self.rounded = 0

    def following(self, piece: int) -> Any:
        """Return the hook that follows one microbatch."""

        def hook(
            visit: Visit,
            inputs: tuple[jax.Array, ...],
            default: Callable[..., tuple[jax.Array, ...]],
        ) -> tuple[jax.Array, ...]:
            return self._follow(piece, visit, inputs, default)

        return hook

    def _follow(
        self, piece: int, visit: Visit, inputs: Sequence[Any], default: Callable[..., Any]
    ) -> Any:
        entry = self._entry(piece, visit)
        given = tuple(map(value_of, inputs))
        for place, (value, digest) in enumerate(zip(given, entry.inputs, strict=True)):
            if value.digest() != digest:
                words = f"{entry.text}: operand {place} is not the value that leads there"
                raise _Stop("contradicts", words, entry, None)
        outputs = tuple(default(*inputs))
        own = tuple(map(value_of, outputs))
        self.compared += 1
        if tuple(value.digest() for value in own) == entry.outputs:
            return outputs
        shown = self._opened(entry, own)
        self._judge(visit, entry, given, shown)
        self.rounded += 1
        return tuple(_like(array_of(v), mine) for v, mine in zip(shown, outputs, strict=True))

    def _entry(self, piece: int, visit: Visit) -> Entry:
        entries, at = self._recording.entries, self.compared
        wanted = (piece, visit.name, iterations_of(visit))
        if at >= len(entries):
            words = f"it ends before {visit.name}"
            raise _Stop("contradicts", words, entries[-1], None)
        entry = entries[at]
        if (entry.piece, entry.name, entry.iterations) != wanted:
            words = f"entry {at} is {entry.text}, where the program evaluates {visit.name}"
            raise _Stop("contradicts", words, entry, None)
        operation = visit.operation
        if len(entry.inputs) != len(operation.inputs) or len(entry.outputs) != len(
            operation.outputs
        ):
            words = f"{entry.text}: has not as many operands and results as its operator"
            raise _Stop("contradicts", words, entry, None)
        return entry

    def _opened(self, entry: Entry, own: Sequence[Value]) -> tuple[Value, ...]:
        """Return the recorded results: our own where they are the same, else from the recording."""
        found: list[Value] = []
        for digest, mine in zip(entry.outputs, own, strict=True):
            value = mine if mine.digest() == digest else self._recording.value(digest)
            if value is None:
                words = f"{entry.text}: its results differ from ours and are not shown"
                raise _Stop("opening needed", words, entry, None)
            found.append(value)
        return tuple(found)

    def _judge(
        self, visit: Visit, entry: Entry, inputs: tuple[Value, ...], outputs: tuple[Value, ...]
    ) -> None:
        found = check_operator(
            self._program,
            visit.operation,
            [array_of(value) for value in inputs],
            [array_of(value) for value in outputs],
            rules=self._rules,
            backend=cast(Backend, self._recording.said.backend),
        )
        name = visit.operation.name
        if found is None:
            words = f"{entry.text}: {name} gave other bits, and no bound of it is known"
            raise _Stop("undecided", words, entry, None)
        if found.accepted:
            return
        leaf = Leaf(self.compared - 1, entry, name, inputs, outputs, found)
        raise _Stop("refuted", f"{entry.text}: {excess_words(name, found)}", entry, leaf)


def excess_words(operator: str, found: Excess) -> str:
    """Say where an operator's results leave their bound, and how far."""
    where = f"element {found.element}" + (f" of result {found.output}" if found.output else "")
    if np.isinf(found.value) and found.error == 0:
        return f"{operator} is exact; {where} is {found.committed!r}, not {found.expected!r}"
    return (
        f"{operator}: {where} is {found.committed:.9g}, honest results lie within "
        f"{found.error:.2g} of {found.expected:.9g} ({found.value:.3g} times the bound)"
    )


def _end(outputs: Tree, committed: Committed) -> tuple[Verdict, str]:
    """Compare the recording's end with what the row commits."""
    digest = gradient_digest(outputs, step=committed.step, alg=committed.alg)
    if digest.root.hex() == committed.root:
        return "holds", "every operator is within its bound, and the end is the committed gradient"
    if committed.outputs is None:
        words = "it ends in other bits than the committed gradient, which is not at hand to weigh"
        return "undecided", words
    names = ("gradient", "statistics")
    theirs = {name: cast("Mapping[str, Any]", committed.outputs)[name] for name in names}
    ours = {name: outputs[name] for name in names}
    weighed = {path: x for path, x in host_leaves(ours).items() if committed.weighs(path)}
    found = end_distance(host_leaves(theirs), weighed, committed.tolerance)
    if found.accepted:
        words = (
            f"every operator is within its bound, and the end is the committed gradient within "
            f"rounding ({found.value:.2g} times the tolerance of {committed.tolerance:.2g})"
        )
        return "holds", words
    words = (
        f"it ends in another gradient than the row commits: {found.where} is "
        f"{found.value:.3g} times the tolerance of {committed.tolerance:.2g} away"
    )
    return "elsewhere", words


def end_distance(
    committed: Mapping[Path, Array], recorded: Mapping[Path, Array], tolerance: float
) -> Statistic:
    """Return the largest distance of a tensor over its norm times the tolerance."""

    def ratio(path: Path) -> float:
        theirs, ours = committed[path], recorded[path]
        if (theirs.shape, theirs.dtype) != (ours.shape, ours.dtype):
            return math.inf
        if same_bits(theirs, ours):
            return 0.0
        wide = ours.astype(np.float64)
        distance = float(np.linalg.norm((theirs.astype(np.float64) - wide).ravel()))
        scale = tolerance * float(np.linalg.norm(wide.ravel()))
        # Zeros may differ in sign, as in check A.
        return distance / scale if scale else (0.0 if distance == 0 else math.inf)

    return largest(Statistic(ratio(path), path_text(path)) for path in recorded)


def _like(array: Array, mine: Any) -> Any:
    """Return a recorded value as the kind of array that the evaluation had."""
    return array if isinstance(mine, np.ndarray) else jax.numpy.asarray(array)
