"""Loops: as a scan where the count is known, as a while loop, or run by Python.

A loop is counted where its condition is `counter < limit`, its body adds a constant to the counter,
and start, limit and step are known on the host; jax's scans and fori loops are. Carried values that
the body returns unchanged stay outside, so that sizes among them stay known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from numpy.typing import NDArray

from anh_jax.errors import ProgramError
from anh_jax.program.interpreter.evaluation import Evaluation, Site
from anh_jax.program.interpreter.operations import Block
from anh_jax.program.interpreter.scope import Values

# A counted loop's numbers are listed: more of them would fill the memory of whoever only reads it.
_MOST_ITERATIONS = 1 << 26


@dataclass(frozen=True)
class _Counter:
    """Say which carried value counts, and the values it takes; `end` is the one after the last."""

    position: int
    values: NDArray[Any]
    end: NDArray[Any]


@dataclass(frozen=True)
class _Loop:
    """Hold a loop that is being evaluated.

    Attributes:
        site: the `while` operator; its operands are all carried values before the loop.
        carried: positions of those that change, the counter of a counted loop left out.
    """

    site: Site
    counter: _Counter | None
    carried: tuple[int, ...]

    def arguments(self, carry: Values, count: Any) -> Values:
        """Return all of the body's arguments from those that change."""
        full = list(self.site.inputs)
        for position, value in zip(self.carried, carry, strict=True):
            full[position] = value
        if self.counter is not None:
            full[self.counter.position] = count
        return tuple(full)

    def step(self, evaluation: Evaluation, arguments: Values, iteration: Any) -> Values:
        """Run the body once; return what changes."""
        _, body = self.site.operation.regions
        place = self.site.place.inside(".do[*]", iteration)
        outputs = evaluation.block(body, arguments, body.captured(self.site.values), place)
        return tuple(jnp.asarray(outputs[position]) for position in self.carried)

    def holds(self, arguments: Values) -> Any:
        """Return whether the loop goes on; its condition is shown to nobody."""
        condition, _ = self.site.operation.regions
        around = condition.captured(self.site.values)
        place = self.site.place.inside(".while")
        (goes_on,) = self.site.evaluation.quiet().block(condition, arguments, around, place)
        return goes_on

    @property
    def first(self) -> Values:
        """Return the values that change, before the loop."""
        return tuple(jnp.asarray(self.site.inputs[position]) for position in self.carried)


def evaluate_while(site: Site) -> Values:
    """Evaluate a `stablehlo.while`."""
    _, body = site.operation.regions
    fixed = {i for i, x in enumerate(body.results) if x == body.arguments[i]}
    counter = None if site.evaluation.loops == "while" else _counted(site, fixed)
    moving = set(range(len(site.inputs))) - fixed - ({counter.position} if counter else set[int]())
    loop = _Loop(site, counter, tuple(sorted(moving)))
    if site.evaluation.loops == "python":
        outputs = _run_by_python(loop)
    else:
        outputs = _run_while(loop) if counter is None else _run_scan(loop, counter)
    end = None if counter is None else counter.end
    return loop.arguments(outputs, end)


def _run_scan(loop: _Loop, counter: _Counter) -> Values:
    evaluation = loop.site.evaluation
    inner = recorder = evaluation.recorder
    count = len(counter.values)
    if count == 0:
        return loop.first

    def body(carry: Values, at: Any) -> tuple[Values, Values]:
        nonlocal inner
        iteration, value = at
        inner = None if recorder is None else recorder.inner()
        outputs = loop.step(evaluation.recording(inner), loop.arguments(carry, value), iteration)
        return outputs, () if inner is None else tuple(inner.values)

    each = (np.arange(count, dtype=np.uint32), counter.values)
    outputs, kept = lax.scan(body, loop.first, each)
    if recorder is not None and inner is not None:
        recorder.stack(count, inner, tuple(kept))
    return outputs


def _run_while(loop: _Loop) -> Values:
    evaluation = loop.site.evaluation

    def goes_on(carry: tuple[Any, Values]) -> Any:
        return jnp.asarray(loop.holds(loop.arguments(carry[1], None)))

    def body(carry: tuple[Any, Values]) -> tuple[Any, Values]:
        iteration, values = carry
        after = loop.step(evaluation.recording(None), loop.arguments(values, None), iteration)
        return iteration + jnp.uint32(1), after

    _, outputs = lax.while_loop(goes_on, body, (jnp.uint32(0), loop.first))
    evaluation.keep(loop.site.place, outputs)
    return outputs


def _run_by_python(loop: _Loop) -> Values:
    evaluation, carry = loop.site.evaluation, loop.first
    if loop.counter is not None:
        for iteration, value in enumerate(loop.counter.values):
            # An array, as in a scan: what depends on the counter is shown in both.
            carry = loop.step(evaluation, loop.arguments(carry, jnp.asarray(value)), iteration)
        return carry
    iteration = 0
    while _concrete(loop.site, loop.holds(loop.arguments(carry, None))):
        carry = loop.step(evaluation, loop.arguments(carry, None), iteration)
        iteration += 1
    return carry


def _concrete(site: Site, goes_on: Any) -> bool:
    if isinstance(goes_on, Tracer):
        raise ProgramError(
            f"program {site.evaluation.program.name}: how often the loop at {site.place.name} runs"
            " depends on the arguments' values, so Python cannot run it while jax traces;"
            " use loops='while'"
        )
    return bool(goes_on)


def _counted(site: Site, fixed: set[int]) -> _Counter | None:
    """Return the counter, if the loop's condition and body show how often it runs."""
    condition, body = site.operation.regions
    if len(condition.results) != 1:
        return None
    compared = condition.producer(condition.results[0])
    if compared is None or compared.name != "stablehlo.compare":
        return None
    counter, limit = compared.inputs
    if compared.attributes["comparison_direction"] != "LT" or counter not in condition.arguments:
        return None
    position = condition.arguments.index(counter)
    known = _known(site, fixed)
    last = known(condition, limit)
    step = _step(body, position, known)
    first = site.inputs[position]
    if last is None or step is None or not isinstance(first, np.ndarray) or step <= 0:
        return None
    numbers = range(int(first), int(last), int(step))
    if numbers and (numbers[-1] - numbers[0]) // numbers.step >= _MOST_ITERATIONS:
        where = f"program {site.evaluation.program.name}: the loop at {site.place.name}"
        raise ProgramError(f"{where} runs more than {_MOST_ITERATIONS:,} times")
    end = int(first) + len(numbers) * int(step)
    if end > np.iinfo(first.dtype).max:
        return None  # It would wrap around, and the loop go on.
    return _Counter(position, np.array(numbers, first.dtype), np.asarray(end, first.dtype))


def _step(body: Block, position: int, known: Callable[[Block, int], Any]) -> Any:
    added = body.producer(body.results[position])
    if (
        added is None
        or added.name != "stablehlo.add"
        or body.arguments[position] not in added.inputs
    ):
        return None
    others = [x for x in added.inputs if x != body.arguments[position]]
    return known(body, others[0]) if len(others) == 1 else None


def _known(site: Site, fixed: set[int]) -> Callable[[Block, int], Any]:
    """Return a function that gives an integer known on the host, None for any other value."""

    def known(block: Block, number: int) -> Any:
        found: Any = site.values.get(number) if number in block.captures else None
        if number in block.arguments and block.arguments.index(number) in fixed:
            found = site.inputs[block.arguments.index(number)]
        operation = block.producer(number)
        if operation is not None and operation.name == "stablehlo.constant":
            found = operation.attributes["value"]
        integer = isinstance(found, np.ndarray) and found.shape == () and found.dtype.kind in "iu"
        return found if integer else None

    return known
