"""Finds the first step of a run that does not follow, by halving, against its own replay.

The hash of a row names the row before it, so once a step went wrong no later row is the honest one,
even where the states come back to the honest ones: that makes the search monotone. Each look
re-executes one stretch from the last state known to be honest, half as long as the one before, and
compares the line of rows on its way: over T steps at most log2(T + 1) looks, rounded up, and T + 1
steps in all.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from anh_jax.audit.benches import Benches, placed
from anh_jax.audit.exact import ExactJudge, Judged
from anh_jax.audit.kept_states import KeptStates
from anh_jax.audit.replay import Reached, Replay, Unreached, kept_copy
from anh_jax.audit.results import StepResult
from anh_jax.audit.row_numbers import RowNumbers, row_numbers
from anh_jax.audit.transcript import Transcript
from anh_jax.audit.unmoved import Unmoved
from anh_jax.data.manifest import PADDING
from anh_jax.digest.host import gradient_digest, tree_digest
from anh_jax.errors import AnhError
from anh_jax.line import SignedRow
from anh_jax.stated_class import ClassMatch, match_class
from anh_jax.training.executor import Tree
from anh_jax.training.state import State
from anh_jax.workbench import Materials
from attest.statements import Attempt, Row


@dataclass(frozen=True)
class Stretch:
    """The steps to search: after `start`, which is taken as honest, up to `stop`."""

    start: int
    stop: int


@dataclass(frozen=True)
class Looked:
    """One re-executed stretch, and whether every row on its way is the one that the run has."""

    stretch: Stretch
    found: Literal["follows", "differs"]


@dataclass(frozen=True)
class HostRows:
    """The rows `start` (included) to `stop` (excluded) of a batch that one process held."""

    rank: int
    start: int
    stop: int


@dataclass(frozen=True)
class FirstStep:
    """The first step that does not follow, judged from the honest state before it.

    `examples` are the indices of its batch in the order of its rows, padding left out.
    """

    result: StepResult
    before: Reached
    examples: tuple[int, ...]
    hosts: tuple[HostRows, ...]


@dataclass(frozen=True)
class Searched:
    """What a search over one run found; `first` is None where every step follows.

    `looks` stretches were re-executed, `executed` steps in all.
    """

    stretch: Stretch
    first: FirstStep | None
    looks: int
    executed: int


@dataclass(frozen=True)
class _Differs:
    """The first step of a stretch whose row is another than the run's."""

    step: int


class RunSearch:
    """One closed run and what it takes to re-execute any stretch of it.

    Raises AnhError where the rows form no line.
    """

    def __init__(self, transcript: Transcript, materials: Materials, kept: KeptStates) -> None:
        if transcript.fault or transcript.missing:
            raise AnhError(f"run {transcript.run[:16]}: {transcript.fault or transcript.missing}")
        self.transcript = transcript
        self.benches = Benches(materials, transcript.genesis)
        self._kept = kept
        self._alg = transcript.genesis.alg
        self._executed = 0
        bench = self.benches.of(transcript.attempts[1])
        self._first = bench.executor.initial_state(materials.contract.seed)
        self.unmoved = Unmoved(materials, self._first)

    @property
    def rows(self) -> tuple[SignedRow, ...]:
        """Return the signed rows of steps 1, 2, ... on the line."""
        return self.transcript.line.rows

    @property
    def first(self) -> Reached | None:
        """Return state 0 as init draws it here, None where genesis commits another."""
        if self._root(self._first, 0) != self.transcript.genesis.state_root:
            return None
        return Reached(0, kept_copy(self._first))

    @property
    def comparable(self) -> bool:
        """Tell whether the bits of every attempt must be ours."""
        attempts = self.transcript.attempts.values()
        return all(self.match(attempt).comparable for attempt in attempts)

    def within(self, stretch: Stretch | None) -> Stretch:
        """Return the stretch to search, by default the whole run; AnhError where it has none."""
        whole = Stretch(0, len(self.rows))
        found = stretch or whole
        if not 0 <= found.start < found.stop <= whole.stop:
            raise AnhError(f"steps {found.start} to {found.stop}: the run has {whole.stop}")
        return found

    def search(
        self, stretch: Stretch | None = None, look: Callable[[Looked], None] | None = None
    ) -> Searched:
        """Find the first step of a stretch, by default the whole run, that does not follow.

        Raises AnhError where the stretch is none of the run's, or its first state is not at hand.
        """
        found = self.within(stretch)
        self._executed, looks = 0, 0
        good, bad = self._start(found.start), found.stop + 1
        while bad - good.step > 1:
            # A row that differed names its step: all before it follow, so the next look ends there.
            middle = bad - 1 if bad <= found.stop else (good.step + bad) // 2
            reached = self._reach(good, middle)
            looks += 1
            if look is not None:
                found_there = "differs" if isinstance(reached, _Differs) else "follows"
                look(Looked(Stretch(good.step, middle), found_there))
            if isinstance(reached, _Differs):
                bad = reached.step
            else:
                good = reached
        first = None if bad > found.stop else self.judge(good)
        return Searched(found, first, looks, self._executed)

    def judge(self, before: Reached) -> FirstStep:
        """Judge the step after a state by its bits, and name its batch."""
        return self.named(before, self.judged(before).result)

    def judged(self, before: Reached) -> Judged:
        """Judge the step after a state by its bits, with what came out where it is committed."""
        signed = self.rows[before.step]
        attempt = self.transcript.attempt_of(signed)
        bench = self.benches.of(attempt)
        judge = ExactJudge(bench, self.transcript.genesis, self.match(attempt), self.unmoved)
        return judge.judge(before, signed)

    def named(self, before: Reached, result: StepResult) -> FirstStep:
        """Return the result of the step after a state with the step's batch."""
        signed = self.rows[before.step]
        attempt = self.transcript.attempt_of(signed)
        indices = self.benches.of(attempt).reader.order.step(signed.row.step)
        return FirstStep(
            result=result,
            before=before,
            examples=tuple(int(i) for i in indices if i != PADDING),
            hosts=_hosts(attempt, len(indices)),
        )

    def match(self, attempt: Attempt) -> ClassMatch:
        """Say whether an attempt's bits must be ours."""
        if self.benches.native:
            return ClassMatch("the trainer's plan is native: other code than the stored programs")
        return match_class(attempt, self.transcript.genesis)

    def gradient(self, before: Reached) -> Tree | None:
        """Return the committed gradient of the step after a state, if it comes out here."""
        signed = self.rows[before.step]
        bench = self.benches.of(self.transcript.attempt_of(signed))
        pieces = bench.batch(signed.row.step).pieces
        outputs = bench.executor.gradient(placed(bench, before.state), pieces)
        return outputs if self._same_gradient(outputs, signed.row) else None

    def committed(self, step: int) -> Reached | Unreached:
        """Return the committed state after a step, replayed from the nearest one at hand."""
        return Replay(self.transcript, self.benches, self._kept).state(step)

    def _start(self, step: int) -> Reached:
        if step:
            bench = self.benches.of(self.transcript.attempt_of(self.rows[step - 1]))
            kept = self._kept.state(step, bench)
            if kept is not None:
                return Reached(step, kept)
            raise AnhError(f"the search cannot start from state {step}: {self._kept.missing(step)}")
        first = self.first
        if first is None:
            raise AnhError(
                "state 0, drawn again by init, is not the one that genesis commits: the run does "
                "not follow from its very start, or this is another execution class"
            )
        return first

    def _reach(self, start: Reached, step: int) -> "Reached | _Differs":
        """Step forward; return the state reached, or the first step whose row is another."""
        state = kept_copy(start.state)
        for number in range(start.step + 1, step + 1):
            signed = self.rows[number - 1]
            bench = self.benches.of(self.transcript.attempt_of(signed))
            batch = bench.batch(number)
            state = placed(bench, state)
            outputs = bench.executor.gradient(state, batch.pieces)
            self._executed += 1
            scalars = bench.executor.scalars(outputs)
            gradient = gradient_digest(outputs, step=number, alg=self._alg).root.hex()
            state = bench.executor.update(state, outputs, scalars, number)
            own = row_numbers(
                outputs,
                scalars,
                gradient_root=gradient,
                state_root=self._root(state, number) if self._hashed(signed.row) else "",
            )
            # Every row before is the committed one, so equal rows mean equal lines up to here.
            if self._line(own, signed.row, batch.root) != signed.row_hash:
                return _Differs(number)
        return Reached(step, state)

    def _hashed(self, row: Row) -> bool:
        """Tell whether a row commits a state, or has to by the digest policy."""
        every = int(self.transcript.genesis.digest_policy.removeprefix("every "))
        return row.state_root is not None or row.step % every == 0 or row.step == len(self.rows)

    def _line(self, own: RowNumbers, row: Row, batch_root: str) -> bytes:
        """Return the row hash that this replay gives in the place of a row.

        A declared bound is the trainer's word and no result of the step, so it is taken over.
        """
        replayed = dataclasses.replace(
            row,
            gradient_root=own.gradient_root,
            state_root=own.state_root or None,
            batch_root=batch_root,
            scalars=own.scalars,
            loss=own.loss,
        )
        return replayed.hash()

    def _same_gradient(self, outputs: Tree, row: Row) -> bool:
        digest = gradient_digest(outputs, step=row.step, alg=self._alg)
        return digest.root.hex() == row.gradient_root

    def _root(self, state: State, step: int) -> str:
        return tree_digest(state, step=step, alg=self._alg).root.hex()


def most_looks(steps: int) -> int:
    """Return how many stretches a search over so many steps re-executes at most."""
    return math.ceil(math.log2(steps + 1))


def _hosts(attempt: Attempt, rows: int) -> tuple[HostRows, ...]:
    """Return who held which rows: processes are neighbours along the batch, or each held all."""
    shards = attempt.mesh.data * attempt.mesh.fsdp
    if shards % attempt.processes:
        return tuple(HostRows(rank, 0, rows) for rank in range(attempt.processes))
    size = rows // attempt.processes
    return tuple(
        HostRows(rank, rank * size, (rank + 1) * size) for rank in range(attempt.processes)
    )
