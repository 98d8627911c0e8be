"""Digests the gradient and the state of a step and signs its row."""

import time

import jax
import numpy as np

from anh_jax.digest.host import Exchange, gradient_digest, tree_digest
from anh_jax.training.checkpoints import Position
from anh_jax.training.loop import CompletedStep
from anh_jax.training.recorder import StepFacts, StepRecorder
from attest.canonical import hex_float
from attest.statements import Scalars


class Attestation:
    """Signs one row a step; `position` is the newest one's and `seconds` what it cost.

    `every` is the digest policy: the state is digested every so many steps and at the last one,
    the gradient always. `exchange` gathers tile digests over processes, or is None in one process.
    """

    def __init__(
        self,
        recorder: StepRecorder,
        *,
        alg: str,
        every: int,
        last_step: int,
        exchange: Exchange | None = None,
    ):
        self._recorder = recorder
        self._alg = alg
        self._every = every
        self._last_step = last_step
        self._exchange = exchange
        self.position: Position | None = None
        self.state_root: str | None = None
        self.seconds = 0.0

    def after_step(self, completed: CompletedStep) -> None:
        """Digest, sign and append; everything read here was computed by an earlier dispatch."""
        start = time.perf_counter()
        step = completed.step
        gradient = gradient_digest(
            completed.outputs, step=step, alg=self._alg, exchange=self._exchange
        )
        self.state_root = None
        if step % self._every == 0 or step == self._last_step:
            state = tree_digest(completed.state, step=step, alg=self._alg, exchange=self._exchange)
            self.state_root = state.root.hex()
        facts = StepFacts(
            step=step,
            gradient_root=gradient.root.hex(),
            state_root=self.state_root,
            batch_root=completed.batch.root,
            scalars=Scalars(
                global_norm=hex_float(host_number(completed.scalars["globalNorm"])),
                finite=int(host_number(completed.scalars["finite"])),
                weight=hex_float(host_number(completed.scalars["weight"])),
            ),
            loss=host_number(completed.outputs["loss"]),
        )
        self.position = self._recorder.record(facts)
        self.seconds = time.perf_counter() - start

    def sync(self) -> None:
        """Make every row signed so far durable."""
        self._recorder.sync()

    def close(self) -> None:
        """Make every row durable and close the step file."""
        self._recorder.close()


def host_number(value: jax.Array) -> float:
    """Read a replicated scalar on this host; float32 values survive exactly."""
    return float(np.asarray(value.addressable_data(0)))
