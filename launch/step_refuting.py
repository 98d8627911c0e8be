"""Refutes the update of a step, or a run's start, by a file: where what it takes is at hand."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anh_jax.audit.bisect import FirstStep, RunSearch
from anh_jax.audit.kept_states import KeptStates
from anh_jax.audit.refuting_steps import OpenedStep, refute_start, refute_step
from anh_jax.audit.replay import kept_copy
from anh_jax.audit.step_refutation import update_inputs
from anh_jax.run_directory import RunDirectory, write_atomically
from anh_jax.training.executor import Tree

_WITHIN = (
    "no element of the update is outside its tolerance: it is the gradient, or the optimizer mixes "
    "elements; a recording shows where"
)


@dataclass(frozen=True)
class Disputable:
    """A closed run: its directory, what is at hand of its states, and what re-executes it."""

    run: RunDirectory
    kept: KeptStates
    search: RunSearch


@dataclass(frozen=True)
class Written:
    """The file that a refutation was written to, or why there is none."""

    file: Path | None
    words: str = ""


def write_step_refutation(opened: Disputable, first: FirstStep, out: Path) -> Written:
    """Write the refutation of the update of a step from the committed trees around it.

    Raises AnhError where the row's envelope is not in the run directory.
    """
    search = opened.search
    found = _opened_step(opened, first)
    if isinstance(found, str):
        return Written(None, found)
    materials, alg = search.benches.materials, search.transcript.genesis.alg
    made = refute_step(opened.run, materials, found, alg=alg)
    if made is None:
        return Written(None, _WITHIN)
    write_atomically(out, made.to_bytes())
    return Written(out)


def write_start_refutation(opened: Disputable, out: Path) -> Written:
    """Write the refutation of a start that init does not give, if genesis's state 0 is at hand."""
    search = opened.search
    bench = search.benches.of(search.transcript.attempts[1])
    first = opened.kept.state(0, bench)
    if first is None:
        return Written(None, f"{opened.kept.missing(0)}; ask its trainer with --states")
    materials, alg = search.benches.materials, search.transcript.genesis.alg
    made = refute_start(opened.run, materials, first, alg=alg)
    if made is None:
        return Written(None, "every tensor of state 0 is as init gives it")
    write_atomically(out, made.to_bytes())
    return Written(out)


def _opened_step(opened: Disputable, first: FirstStep) -> OpenedStep | str:
    """Return the committed trees of a step; where one is missing, say which."""
    search, kept, step = opened.search, opened.kept, first.result.step
    rows = search.rows
    signed, previous = rows[step - 1], rows[step - 2].row if step > 1 else None
    if signed.row.state_root is None or (previous is not None and previous.state_root is None):
        return f"the rows around step {step} do not commit both states"
    bench = search.benches.of(search.transcript.attempt_of(signed))
    after = kept.state(step, bench)
    outputs = search.gradient(first.before) or kept.outputs(step, bench)
    if after is None or outputs is None:
        return f"{kept.missing(step)}; ask its trainer with --states"
    table = search.benches.materials.constants
    inputs = update_inputs(signed.row, table, first.before.state, outputs["gradient"])
    scalars: Tree = {
        "globalNorm": np.float32(inputs.global_norm),
        "finite": np.uint32(inputs.finite),
        "weight": np.float32(inputs.weight),
    }
    state = kept_copy(first.before.state)
    reference = bench.executor.update(state, outputs, scalars, step)
    return OpenedStep(signed, previous, first.before.state, outputs, after, reference)
