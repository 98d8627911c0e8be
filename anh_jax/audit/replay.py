"""Regenerates states of a run bit for bit, each proven to be the one that the run committed.

A replay starts from the nearest state at hand (state 0 by `init`, the state it reached last, one
that lies in the run directory) and steps forward by the contract's programs on the mesh of each
step's attempt. No state counts before its digest is that of the row: what starts from a state of
the trainer's, unchecked, would audit nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from anh_jax.audit.benches import Benches, placed
from anh_jax.audit.kept_states import KeptStates
from anh_jax.audit.transcript import SignedRun
from anh_jax.digest.host import gradient_digest, tree_digest
from anh_jax.line import SignedRow
from anh_jax.training.state import State, moving_part
from anh_jax.workbench import Workbench


@dataclass(frozen=True)
class Reached:
    """A regenerated state, after `step` steps, with the digest that the run committed."""

    step: int
    state: State


@dataclass(frozen=True)
class Unreached:
    """A state that could not be produced: why, in words.

    `last` is the last state on the way that was still the committed one, where there is one: the
    step after it does not hold here.
    """

    words: str
    last: Reached | None = None


class Replay:
    """Produces the states of one run; asked for ascending steps, it never goes back.

    `kept` are the states in the run directory; with none there it replays from state 0 alone.
    `watch` is called with each step that is taken on the way.
    """

    def __init__(
        self,
        transcript: SignedRun,
        benches: Benches,
        kept: KeptStates,
        watch: Callable[[int], None] = lambda step: None,
    ) -> None:
        self._transcript = transcript
        self._benches = benches
        self._kept = kept
        self._watch = watch
        self._running: Reached | None = None
        self._broken: dict[int, Reached] = {}
        self.notes = kept.notes

    def state(self, step: int) -> Reached | Unreached:
        """Return the state after `step` steps. The caller may not give its buffers away."""
        running = self._running
        for origin in self._origins(step):
            if running is not None and origin == running.step:
                start = running
            else:
                broken = self._broken.get(origin)
                if broken is not None and broken.step < step:
                    return self._unreached(broken, step)
                start = self._start(origin)
            if start is not None:
                return self._forward(start, step)
        return Unreached(
            f"state {step} cannot be produced: neither state 0 nor a state kept before it is the "
            "committed one"
        )

    def follow(self, start: Reached, step: int) -> Reached | Unreached:
        """Return the state after `step` steps, every one taken from `start` on, whatever lies here.

        `start` stays the next start: other steps on the way may be asked for after this one.
        """
        reached = self._forward(Reached(start.step, kept_copy(start.state)), step)
        self._running = start
        return reached

    def go_on_from(self, reached: Reached) -> None:
        """Take a state that was found to be the committed one as the next start."""
        self._running = reached

    def _origins(self, step: int) -> Iterator[int]:
        """Yield the steps of the states at hand up to `step`, nearest first."""
        known = {0, *self._kept.steps(step)}
        if self._running is not None:
            known.add(self._running.step)
        yield from sorted(known & set(self._kept.origins(step)), reverse=True)

    def _start(self, step: int) -> Reached | None:
        if step:
            state = self._kept.state(step, self._bench(step))
            return None if state is None else Reached(step, state)
        seed = self._benches.materials.contract.seed
        state = self._bench(1).executor.initial_state(seed)
        if self._root(state, 0) == self._transcript.genesis.state_root:
            return Reached(0, state)
        self.notes.append("state 0, drawn again by init, is not the one that genesis commits")
        # Another class may draw other bits; whoever drew the committed ones can show them.
        shown = self._kept.state(0, self._bench(1)) if self._kept.asked_for else None
        return None if shown is None else Reached(0, shown)

    def _forward(self, start: Reached, step: int) -> Reached | Unreached:
        """Step forward, digesting the last state alone; look closer where it is another."""
        if start.step == step:
            self._running = start
            return start
        # Each update gives the buffers of the state before it away, those of `start` too.
        self._running = None
        committed = self._transcript.state_root(step)
        if committed is None:
            return self._watched(start, step)
        state = start.state
        for number in range(start.step + 1, step + 1):
            self._watch(number)
            state = self._step(state, number)
        if self._root(state, step) == committed:
            self._running = Reached(step, state)
            return self._running
        # Not from a later state: what is looked for lies on the way from `start`.
        origins = self._origins(start.step)
        again = next((s for s in map(self._start, origins) if s is not None), None)
        if again is None:
            return Unreached(f"state {step} cannot be produced: it came out otherwise, once")
        return self._watched(again, step)

    def _watched(self, start: Reached, step: int) -> Reached | Unreached:
        """Step forward, comparing every gradient and state with its row."""
        state = start.state
        for number in range(start.step + 1, step + 1):
            self._watch(number)
            before = kept_copy(state)
            row = self._transcript.line.rows[number - 1].row
            bench = self._bench(number)
            state = placed(bench, state)
            outputs = bench.executor.gradient(state, bench.batch(number).pieces)
            gradient = gradient_digest(outputs, step=number, alg=self._transcript.genesis.alg)
            scalars = bench.executor.scalars(outputs)
            state = bench.executor.update(state, outputs, scalars, number)
            same = gradient.root.hex() == row.gradient_root
            if row.state_root is not None:
                same = same and self._root(state, number) == row.state_root
            if not same:
                self._broken[start.step] = Reached(number - 1, before)
                return self._unreached(self._broken[start.step], step)
        self._running = Reached(step, state)
        return self._running

    def _unreached(self, last: Reached, step: int) -> Unreached:
        return Unreached(
            f"state {step} cannot be produced: step {last.step + 1} on the way came out otherwise",
            Reached(last.step, kept_copy(last.state)),
        )

    def _step(self, state: State, step: int) -> State:
        bench = self._bench(step)
        state = placed(bench, state)
        outputs = bench.executor.gradient(state, bench.batch(step).pieces)
        return bench.executor.update(state, outputs, bench.executor.scalars(outputs), step)

    def _bench(self, step: int) -> Workbench:
        """Return the workbench of the attempt that took a step."""
        signed: SignedRow = self._transcript.line.rows[step - 1]
        return self._benches.of(self._transcript.attempt_of(signed))

    def _root(self, state: State, step: int) -> str:
        return tree_digest(state, step=step, alg=self._transcript.genesis.alg).root.hex()


def kept_copy(state: State) -> State:
    """Return a state whose buffers outlive an update of the original, which gives its own away."""
    return {**state, **jax.tree.map(jnp.copy, moving_part(state))}
