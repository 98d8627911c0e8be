"""Where a worker starts: state 0, or the newest training checkpoint, shown to be the signed one."""

import dataclasses
from dataclasses import dataclass

from anh_jax.digest.digester import Digester
from anh_jax.errors import AnhError
from anh_jax.line import SignedRow, signed_rows, signed_segments
from anh_jax.run_directory import RunDirectory
from anh_jax.training.checkpoints import Position, TrainingCheckpoints
from anh_jax.training.state import State
from anh_jax.workbench import Workbench


@dataclass(frozen=True)
class Start:
    """The state to go on from, the steps completed in it, and its place on the line.

    `position` is None at state 0, whose place is genesis. `checked` says in words what was found
    equal to the signed rows before the first resumed step.
    """

    step: int
    state: State
    root: str
    position: Position | None
    checked: str


def find_start(
    run: RunDirectory,
    bench: Workbench,
    checkpoints: TrainingCheckpoints,
    digester: Digester,
) -> Start:
    """Restore the newest training checkpoint, or draw state 0 where there is none.

    Raises AnhError where the restored state is not the one that its row commits.
    """
    newest = checkpoints.newest()
    contract = bench.materials.contract
    if newest is None:
        state = bench.executor.initial_state(contract.seed)
        root = digester.start(state, step=0).result().root.hex()
        return Start(step=0, state=state, root=root, position=None, checked="")
    restored = checkpoints.restore(newest, bench.abstract_state())
    root = digester.start(restored.state, step=newest).result().root.hex()
    checked = _compare(run, bench, newest, root, restored.position)
    return Start(
        step=newest, state=restored.state, root=root, position=restored.position, checked=checked
    )


def without_position(start: Start) -> Start:
    """Return the same start with a fresh line: for runs that sign nothing."""
    return dataclasses.replace(start, position=None)


def _compare(run: RunDirectory, bench: Workbench, step: int, root: str, position: Position) -> str:
    if not position.row:
        return ""  # attest.mode off: nothing was signed, so nothing can be compared
    following: SignedRow | None = None
    committed: SignedRow | None = None
    # The checkpoint names the row, and the record by which the log knows it: its own, or a segment.
    records = {found.record: found.segment.last_row for found in signed_segments(run)}
    for signed in signed_rows(run):
        own = signed.record_hash.hex() == position.record
        if (own or records.get(position.record) == position.row) and (
            signed.row_hash.hex() == position.row
        ):
            committed = signed
        if signed.row.prev == position.row:
            following = signed
    if committed is None:
        raise AnhError(
            f"{run.root}: no step file holds the row that the training checkpoint of step {step} "
            "belongs to; remove that checkpoint to resume from the one before it"
        )
    if committed.row.state_root is not None and committed.row.state_root != root:
        raise AnhError(
            f"{run.root}: the training checkpoint of step {step} is not the state that was signed "
            f"({root[:16]}, signed {committed.row.state_root[:16]}); remove it to resume earlier"
        )
    state = "state: equal, keys: equal, learning rate: equal"
    if committed.row.state_root is None:
        state = f"state: the digest policy skips step {step}, not compared"
    batch = "data order: equal"
    if following is not None:
        order = bench.reader.batch_for_step(step + 1).root.hex()
        if order != following.row.batch_root:
            raise AnhError(
                f"{run.root}: the batch of step {step + 1} is not the one signed before; "
                "the data have changed"
            )
        batch = "batch: equal"
    return f"{state}, {batch}"
