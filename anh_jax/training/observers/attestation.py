"""Digests the gradient and the state of a step and signs its row, at most one step late."""

import dataclasses
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from anh_jax.digest.digester import Digester, PendingDigest, committed_outputs
from anh_jax.training.bound_estimate import BoundEstimate, BoundSource
from anh_jax.training.checkpoints import Position
from anh_jax.training.executor import Tree
from anh_jax.training.loop import BeforeUpdate, CompletedStep
from anh_jax.training.recorder import StepFacts, StepRecorder
from attest.canonical import hex_float
from attest.statements import Scalars

_REMEMBERED_SECONDS = 4


@dataclass(frozen=True)
class DigestSchedule:
    """Which steps' states are digested, and at which of them replicas are compared.

    The state is digested every `every` steps and after the last one, the gradient always. Where
    the state of a multiple of `compare_every` or of the last step is digested, every device hashes
    all it holds and the replicas are compared; elsewhere the devices may share the work.
    """

    every: int
    compare_every: int
    last_step: int

    def takes_state(self, step: int) -> bool:
        """Tell whether the state after `step` is digested."""
        return step % self.every == 0 or step == self.last_step

    def compares_replicas(self, step: int) -> bool:
        """Tell whether the state's replicas are compared at `step`."""
        due = step % self.compare_every == 0 or step == self.last_step
        return due and self.takes_state(step)


@dataclass(slots=True)
class _StartedStep:
    """A step whose digests are under way: numbers of a few bytes, and no buffer of its state."""

    step: int
    batch_root: str
    scalars: Tree
    loss: jax.Array
    gradient: PendingDigest
    state: PendingDigest | None
    seconds: float
    estimate: BoundEstimate | None


class Attestation:
    """Signs one row a step, `digester.lag` steps after the step itself.

    Digests are started before the next update may take the state's buffers, and read once another
    step is dispatched: no wait leaves a device without work. `place` and `close` finish what is
    under way first.
    """

    def __init__(
        self,
        recorder: StepRecorder,
        digester: Digester,
        schedule: DigestSchedule,
        bound: BoundSource | None = None,
    ) -> None:
        self._bound = bound
        self._recorder = recorder
        self._digester = digester
        self._schedule = schedule
        self._started: deque[_StartedStep] = deque()
        self._seconds: dict[int, float] = {}

    def seconds(self, step: int) -> float | None:
        """Return what digesting and signing one of the newest steps cost; None until it is signed.

        Wall seconds of the training thread. Waiting for the step's own values is not in them, nor
        what a device computes beside them; waiting for a device's digest is.
        """
        return self._seconds.get(step)

    def after_step(self, completed: CompletedStep) -> None:
        """Start this step's digests, then sign the step whose digests were started before."""
        self._started.append(self._start(completed))
        self._finish(left=self._digester.lag)

    def can_place(self, step: int) -> bool:
        """Tell whether a training checkpoint may name this step: a segment ends at a state root."""
        return not self._recorder.cuts_segments or self._schedule.takes_state(step)

    def place(self) -> Position:
        """Sign every completed step durably; return where the newest stands, by a logged record.

        With it comes the newest estimate of the declared bound, from which a resumed run goes on.
        """
        self._finish(left=0)
        placed = self._recorder.place()
        if self._bound is None:
            return placed
        return dataclasses.replace(placed, bound=self._bound.newest)

    @property
    def before_update(self) -> BeforeUpdate | None:
        """Return what measures the declared bound before an update, None where none is declared."""
        return None if self._bound is None else self._bound.before_update

    def close(self) -> None:
        """Sign every completed step, make all rows durable and close the step file."""
        self._finish(left=0)
        self._recorder.close()

    def __enter__(self) -> "Attestation":
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        if kind is not None:
            # What the run ended with may have spoilt the steps under way; what is signed stays.
            self._started.clear()
        self.close()

    def _start(self, completed: CompletedStep) -> _StartedStep:
        step = completed.step
        gradient, seconds = self._digest(committed_outputs(completed.outputs), step)
        state = None
        if self._schedule.takes_state(step):
            compared = self._schedule.compares_replicas(step)
            state, more = self._digest(completed.state, step, every_replica=compared)
            seconds += more
        loss = completed.outputs["loss"]
        if self._digester.lag:
            for number in (loss, *completed.scalars.values()):
                number.copy_to_host_async()
        return _StartedStep(
            step,
            completed.batch.root,
            completed.scalars,
            loss,
            gradient,
            state,
            seconds,
            # Of this step or an earlier one: the next is measured once this one is handed over.
            None if self._bound is None else self._bound.newest,
        )

    def _digest(
        self, tree: Any, step: int, *, every_replica: bool = False
    ) -> tuple[PendingDigest, float]:
        """Start a digest; return the seconds it took of this thread."""
        if not self._digester.lag:
            # A host reads the values at once; waiting for them is the step's time. All of a tree
            # come from one program, so one tells: to ask each takes as long as to hash a few.
            jax.block_until_ready(jax.tree.leaves(tree)[:1])
        clock = time.perf_counter()
        pending = self._digester.start(tree, step=step, every_replica=every_replica)
        return pending, time.perf_counter() - clock

    def _finish(self, *, left: int) -> None:
        while len(self._started) > left:
            started = self._started.popleft()
            clock = time.perf_counter()
            self._recorder.record(_facts(started))
            self._seconds[started.step] = started.seconds + time.perf_counter() - clock
            self._seconds.pop(started.step - _REMEMBERED_SECONDS, None)


def _facts(started: _StartedStep) -> StepFacts:
    """Wait for a step's digests and scalars."""
    scalars = started.scalars
    norm = host_number(scalars["globalNorm"])
    return StepFacts(
        step=started.step,
        gradient_root=started.gradient.result().root.hex(),
        state_root=None if started.state is None else started.state.result().root.hex(),
        batch_root=started.batch_root,
        scalars=Scalars(
            global_norm=hex_float(norm),
            finite=int(host_number(scalars["finite"])),
            weight=hex_float(host_number(scalars["weight"])),
        ),
        loss=host_number(started.loss),
        bound=None if started.estimate is None else started.estimate.at(norm),
    )


def host_number(value: jax.Array) -> float:
    """Read a replicated scalar on this host; float32 values survive exactly."""
    return float(np.asarray(value.addressable_data(0)))
