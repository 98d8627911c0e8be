"""Regenerates the states and the gradient of any step of a run, on the trainer's side.

What an audit asks for is made again from the nearest training checkpoint, by the contract's stored
programs on the mesh of the step's attempt. Everything is compared with the signed rows: what comes
out otherwise is not handed on. Of an own loop, whose code nobody else has, what it retained is
read instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

from anh_jax.audit.benches import Benches, placed
from anh_jax.audit.kept_states import KeptStates
from anh_jax.audit.replay import Replay, Unreached, kept_copy
from anh_jax.audit.row_numbers import RowNumbers, row_numbers
from anh_jax.audit.transcript import SignedRun
from anh_jax.digest.host import gradient_digest, tree_digest
from anh_jax.errors import AnhError, RefutedError
from anh_jax.line import SignedRow
from anh_jax.stated_class import match_class
from anh_jax.training.executor import Tree
from anh_jax.training.loop import StepBatch
from anh_jax.training.state import State
from anh_jax.workbench import Workbench


@dataclass(frozen=True)
class Beginning:
    """What a step begins with: its row, the state before it, its batch, and the programs."""

    signed: SignedRow
    before: State
    batch: StepBatch
    bench: Workbench


@dataclass(frozen=True)
class RegeneratedStep:
    """A step made again: `gradient` and `statistics` among `outputs`, and the state after it.

    `batch_root` is that of the examples that the data order gives the step. `numbers` are those of
    its row, recomputed; None where outputs and state were read from what was retained.
    """

    signed: SignedRow
    before: State
    outputs: Tree
    after: State
    batch_root: str
    numbers: RowNumbers | None

    def pairs(self) -> tuple[tuple[str, str | int, str | int], ...]:
        """Return each number's name, as it came out here and as the row states it."""
        row = self.signed.row
        batch = ("batch root", self.batch_root, row.batch_root)
        return (batch, *(() if self.numbers is None else self.numbers.pairs(row)))

    def differs(self) -> tuple[str, ...]:
        """Return the names of the row's numbers that came out otherwise, causes first."""
        return tuple(name for name, ours, theirs in self.pairs() if ours != theirs)


class Regeneration:
    """Makes states and steps of one run again, in any order; ascending ones share their way.

    `watch` is called with each step that is taken on the way.
    """

    def __init__(
        self,
        run: SignedRun,
        benches: Benches,
        kept: KeptStates,
        watch: Callable[[int], None] = lambda step: None,
    ) -> None:
        self._run = run
        self._benches = benches
        self._kept = kept
        self._replay = Replay(run, benches, kept, watch)

    def state(self, step: int) -> State:
        """Return the state after a step, the committed one; its buffers are not to be given away.

        Raises RefutedError where it does not come out as committed, AnhError for a step that the
        run has not signed.
        """
        self._check_signed(step)
        reached = self._replay.state(step)
        if isinstance(reached, Unreached):
            notes = "".join(f"; {note}" for note in dict.fromkeys(self._replay.notes))
            raise RefutedError(f"{reached.words}{notes}{self._obstacle(max(step, 1))}")
        return reached.state

    def beginning(self, step: int, *, attempt: int | None = None) -> Beginning:
        """Return what step `step` (from 1) begins with; raises what `state` raises.

        `attempt` takes the row of that attempt, on the line or off it; raises AnhError where it has
        none that starts from the line's state.
        """
        self._check_signed(max(step, 1))
        signed = self._row(step, attempt)
        before = self.state(step - 1)
        bench = self._benches.of(self._run.attempt_of(signed))
        return Beginning(signed, placed(bench, before), bench.batch(step), bench)

    def step(self, step: int) -> RegeneratedStep:
        """Make a step again, whether its numbers are those of its row or not.

        Raises what `state` raises for the state before it, and AnhError where an own loop has not
        retained the step.
        """
        return self.take(self.beginning(step))

    def take(self, begun: Beginning) -> RegeneratedStep:
        """Take the step that has begun."""
        if self._benches.native:
            return self._retained(begun)
        executor, alg = begun.bench.executor, self._run.genesis.alg
        step = begun.signed.row.step
        outputs = executor.gradient(begun.before, begun.batch.pieces)
        scalars = executor.scalars(outputs)
        after = executor.update(kept_copy(begun.before), outputs, scalars, step)
        numbers = row_numbers(
            outputs,
            scalars,
            gradient_root=gradient_digest(outputs, step=step, alg=alg).root.hex(),
            state_root=tree_digest(after, step=step, alg=alg).root.hex(),
        )
        return RegeneratedStep(
            begun.signed, begun.before, outputs, after, begun.batch.root, numbers
        )

    def check(self, made: RegeneratedStep) -> None:
        """Refuse a step that did not come out as its row states.

        Raises RefutedError naming the numbers that differ, and why other bits may be honest here.
        """
        step, differs = made.signed.row.step, made.differs()
        if differs:
            raise RefutedError(
                f"step {step}: the replay does not reproduce what was signed: "
                f"{', '.join(differs)}{self._obstacle(step, made.signed)}"
            )

    def _retained(self, begun: Beginning) -> RegeneratedStep:
        step, bench = begun.signed.row.step, begun.bench
        outputs, after = self._kept.outputs(step, bench), self._kept.state(step, bench)
        if outputs is None or after is None:
            raise AnhError(f"step {step} of a loop of its own: {self._kept.missing(step)}")
        return RegeneratedStep(begun.signed, begun.before, outputs, after, begun.batch.root, None)

    def _row(self, step: int, attempt: int | None) -> SignedRow:
        line = self._run.line.rows[step - 1]
        if attempt in (None, line.attempt):
            return line
        for signed in self._run.line.stale:
            same = (signed.attempt, signed.row.step) == (attempt, step)
            if same and signed.row.prev == line.row.prev:
                return signed
        raise AnhError(f"step {step}: attempt {attempt} has no row of it that starts from the line")

    def _check_signed(self, step: int) -> None:
        signed = len(self._run.line.rows)
        if not 0 <= step <= signed:
            raise AnhError(f"step {step}: the run has signed {signed} steps; name one of those")

    def _obstacle(self, step: int, signed: SignedRow | None = None) -> str:
        """Say why bits may differ from the attempt's on this machine; empty where they may not."""
        attempt = self._run.attempt_of(signed or self._run.line.rows[step - 1])
        match = match_class(attempt, self._run.genesis)
        return "" if match.comparable else f" ({match.obstacle}; replay where it was trained)"
