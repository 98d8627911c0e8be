"""Judges one step by its bits: recompute it from the committed state before it, and compare.

Equal bits pass, whatever computed them. Different bits refute the step only where they cannot be
honest: the attempt ran on this very execution class, and both sides repeat themselves. Some
numbers of a row are facts of the contract alone (which examples, how many, is it finite): those
are refuted whatever the class.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from anh_jax.audit.benches import placed
from anh_jax.audit.replay import Reached, kept_copy
from anh_jax.audit.results import StepResult
from anh_jax.audit.row_numbers import RowNumbers, row_numbers
from anh_jax.audit.unmoved import Unmoved
from anh_jax.data.manifest import PADDING
from anh_jax.digest.host import gradient_digest, tree_digest
from anh_jax.line import SignedRow
from anh_jax.stated_class import ClassMatch
from anh_jax.training.executor import Tree
from anh_jax.training.loop import StepBatch
from anh_jax.training.state import State
from anh_jax.workbench import Workbench
from attest.canonical import parse_hex_float
from attest.statements import Genesis, Row

REPLAYS = 3
# Every sum of ones up to here is exact in float32, in any order.
_LARGEST_COUNT = 1 << 24


@dataclass(frozen=True)
class Judged:
    """A step's result, and what was recomputed where it is the committed thing.

    `outputs` are those of the gradient program under the row's gradient root, `after` the state
    under its state root; None where ours are others.
    """

    result: StepResult
    outputs: Tree | None
    after: State | None


@dataclass(frozen=True)
class _Replayed:
    numbers: RowNumbers
    outputs: Tree
    after: State


class ExactJudge:
    """Judges rows of one attempt; `match` says whether its bits must be ours."""

    def __init__(
        self, bench: Workbench, genesis: Genesis, match: ClassMatch, unmoved: Unmoved
    ) -> None:
        self._bench = bench
        self._genesis = genesis
        self._match = match
        self._unmoved = unmoved

    def judge(self, before: Reached, signed: SignedRow) -> Judged:
        """Judge the row of the step after `before`, whose state is the committed one."""
        row = signed.row
        batch = self._bench.batch(row.step)
        state = placed(self._bench, before.state)
        fault = next(self._faults(before, row, batch), "")
        chosen = self._replay(state, batch)
        numbers = {chosen.numbers}
        for _ in range(REPLAYS - 1):
            again = self._replay(state, batch)
            numbers.add(again.numbers)
            # One honest execution that gives the committed bits is enough for them to be honest.
            chosen = min(chosen, again, key=lambda r: len(r.numbers.differences(row)))
        differs = chosen.numbers.differences(row)
        result = StepResult(
            step=row.step,
            outcome="pass",
            words="every bit is equal",
            attempt=signed.attempt,
            row=signed.row_hash.hex(),
            differs=differs,
            repeats="equal" if len(numbers) == 1 else "different",
            gradient_root=chosen.numbers.gradient_root,
        )
        return Judged(
            result=self._weigh(result, fault, _not_finite(row, chosen.numbers)),
            outputs=None if "gradient root" in differs else chosen.outputs,
            after=None if "state root" in differs else chosen.after,
        )

    def _weigh(self, result: StepResult, fault: str, hidden: str) -> StepResult:
        """Decide: facts of the contract first, then bits, then whether bits must be equal."""
        if fault or (result.differs and hidden):
            return dataclasses.replace(result, outcome="refuted", words=fault or hidden)
        if not result.differs:
            return result
        names = ", ".join(result.differs)
        obstacle = self._match.obstacle
        if not obstacle and result.repeats == "different":
            obstacle = f"{REPLAYS} replays here do not agree with each other"
        if obstacle:
            words = f"{names}: other bits, which refute nothing here ({obstacle})"
            return dataclasses.replace(result, outcome="unattestable", words=words)
        words = f"{names}: other bits on one execution class; {_hint(result.differs)}"
        return dataclasses.replace(result, outcome="refuted", words=words)

    def _replay(self, state: State, batch: StepBatch) -> _Replayed:
        executor, step, alg = self._bench.executor, batch.step, self._genesis.alg
        outputs = executor.gradient(state, batch.pieces)
        scalars = executor.scalars(outputs)
        root = gradient_digest(outputs, step=step, alg=alg).root.hex()
        after = executor.update(kept_copy(state), outputs, scalars, step)
        numbers = row_numbers(
            outputs,
            scalars,
            gradient_root=root,
            state_root=tree_digest(after, step=step, alg=alg).root.hex(),
        )
        return _Replayed(numbers, outputs, after)

    def _faults(self, before: Reached, row: Row, batch: StepBatch) -> Iterator[str]:
        """Yield what in a row or its state contradicts the contract, on any machine."""
        if row.batch_root != batch.root:
            yield "batch root: not that of the examples that the data order gives this step"
        indices = self._bench.reader.order.step(row.step)
        examples = int((indices != PADDING).sum())
        weight = parse_hex_float(row.scalars.weight)
        if examples <= _LARGEST_COUNT and weight != examples:
            yield f"weight: {weight:g}, the batch has {examples} examples"
        norm, loss = parse_hex_float(row.scalars.global_norm), parse_hex_float(row.loss)
        if row.scalars.finite != int(math.isfinite(norm) and math.isfinite(loss)):
            yield "finite flag: contradicts the row's own gradient norm and loss"
        every = int(self._genesis.digest_policy.removeprefix("every "))
        last = self._bench.materials.contract.steps
        if row.state_root is None and (row.step % every == 0 or row.step == last):
            yield "state root: missing, where the digest policy asks for one"
        yield from self._unmoved.faults(before.state, before.step)


def _not_finite(row: Row, ours: RowNumbers) -> str:
    """Say which number of a row is not finite although ours is; empty where there is none."""
    pairs = (
        ("loss", row.loss, ours.loss),
        ("gradient norm", row.scalars.global_norm, ours.scalars.global_norm),
    )
    for name, theirs, own in pairs:
        if not math.isfinite(parse_hex_float(theirs)) and math.isfinite(parse_hex_float(own)):
            return f"{name}: {theirs} is committed where the step gives a finite number"
    return ""


def _hint(differs: tuple[str, ...]) -> str:
    if "gradient root" in differs:
        return "not the gradient of this batch at this state"
    if differs == ("state root",):
        return "the state was not updated as the contract says"
    return "the row does not state what was computed"
