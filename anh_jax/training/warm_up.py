"""Takes a few steps from state 0 whose results are thrown away: do they repeat, what do they cost?

Every attempt computes its next gradient several times: an exact class is a claim that must be
earned. Where the digest policy is `auto`, the same gradients are timed, and a few updates with
their digests beside them; nothing of it enters the run.
"""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import jax

from anh_jax.digest.digester import Digester, committed_outputs
from anh_jax.errors import AnhError
from anh_jax.training.executor import Executor, Tree
from anh_jax.training.loop import StepBatch
from anh_jax.training.recorder import StepFacts, StepRecorder
from anh_jax.training.seams import WarmUp
from anh_jax.training.state import State
from attest.canonical import hex_float
from attest.keys import PrivateKey
from attest.statements import Scalars

REPLAYS = 3
"""How often the next gradient is computed before anything is signed."""


@dataclass(frozen=True)
class Replays:
    """The next gradient, computed several times: the last outputs, equal or not, median seconds."""

    equal: bool
    outputs: Tree
    gradient_seconds: float
    digest_seconds: float

    @property
    def words(self) -> str:
        """Say what was found."""
        return "equal" if self.equal else "different"


def replay_gradient(
    executor: Executor, digester: Digester, state: State, batch: StepBatch
) -> Replays:
    """Compute the gradient of a batch at a state several times."""
    outputs: Any = None
    roots: set[bytes] = set()
    gradients: list[float] = []
    digests: list[float] = []
    for _ in range(REPLAYS):
        outputs = None  # two gradients at once would be more memory than a step takes
        clock = time.perf_counter()
        outputs = jax.block_until_ready(executor.gradient(state, batch.pieces))
        gradients.append(time.perf_counter() - clock)
        clock = time.perf_counter()
        pending = digester.start(committed_outputs(outputs), step=batch.step)
        roots.add(pending.result().root)
        digests.append(time.perf_counter() - clock)
    return Replays(
        equal=len(roots) == 1,
        outputs=outputs,
        gradient_seconds=statistics.median(gradients),
        digest_seconds=statistics.median(digests),
    )


def measure(executor: Executor, digester: Digester, state: State, replays: Replays) -> WarmUp:
    """Time updates of `state` with the replays' gradient, and digests of what comes out.

    The buffers of `state` are given away, as a step gives them: a copy might not fit.
    """
    updates: list[float] = []
    digests: list[float] = []
    for _ in range(REPLAYS):
        clock = time.perf_counter()
        scalars = executor.scalars(replays.outputs)
        state = jax.block_until_ready(executor.update(state, replays.outputs, scalars, 1))
        updates.append(time.perf_counter() - clock)
        clock = time.perf_counter()
        digester.start(state, step=1).result()  # a new state each time: no host copy is kept of it
        digests.append(time.perf_counter() - clock)
    return WarmUp(
        step_seconds=replays.gradient_seconds + statistics.median(updates),
        state_seconds=statistics.median(digests),
        gradient_seconds=replays.digest_seconds,
        signature_seconds=_signature_seconds(),
        repeats=replays.equal,
    )


def drawn_again(executor: Executor, digester: Digester, *, seed: int, root: str) -> State:
    """Draw state 0 again after its buffers were given away.

    Raises AnhError where it is not the state of this root, in hex, which genesis will name.
    """
    state = executor.initial_state(seed)
    again = digester.start(state, step=0).result().root.hex()
    if again != root:
        raise AnhError(
            f"init: drew state 0 twice and got two states ({root[:16]}, {again[:16]}); nothing "
            "could be verified on this machine"
        )
    return state


class _NoFile:
    """Takes rows that nobody will read."""

    def append(self, envelope: object) -> None:
        """Drop an envelope."""

    def sync(self) -> None:
        """Have nothing to make durable."""

    def close(self) -> None:
        """Have nothing to close."""


def _signature_seconds() -> float:
    name = bytes(32).hex()
    recorder = StepRecorder(
        run=name, attempt=name, key=PrivateKey.generate(), file=_NoFile(), previous=name, bound=1.0
    )
    taken: list[float] = []
    for step in range(1, REPLAYS + 1):
        scalars = Scalars(global_norm=hex_float(1.0), finite=1, weight=hex_float(1.0))
        facts = StepFacts(step, name, name, name, scalars, loss=1.0)
        clock = time.perf_counter()
        recorder.record(facts)
        taken.append(time.perf_counter() - clock)
    return statistics.median(taken)
