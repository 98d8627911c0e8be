"""Training checkpoints: the state after a step, and which signed row it belongs to.

The only file that imports Orbax. A checkpoint appears under its final name once every byte of it
is durable (Orbax commits by a rename), so the newest one listed is always one to resume from.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from anh_jax.errors import AnhError
from anh_jax.training.bound_estimate import BoundEstimate
from attest.canonical import hex_float, parse_hex_float


@dataclass(frozen=True)
class Position:
    """The signed row a training checkpoint belongs to: its hash and its record's, in hex.

    `bound` is the newest estimate of the declared bound at that row, None where none is declared.
    """

    row: str
    record: str
    bound: BoundEstimate | None = None


@dataclass(frozen=True)
class RestoredState:
    """A state read back, the steps completed in it, and its place on the line."""

    step: int
    state: dict[str, Any]
    position: Position


class TrainingCheckpoints:
    """The training checkpoints of one run directory.

    `keep` bounds how many stay on disk; older ones are removed once a newer one is durable.
    """

    def __init__(self, folder: Path, *, keep: int):
        logging.getLogger("absl").setLevel(logging.WARNING)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, step_prefix="step")
        self._folder = folder
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, step: int, state: dict[str, Any], position: Position) -> None:
        """Start to write the state after `step`; returns before it is durable."""
        tree = _plain_keys(state)
        if jax.default_backend() == "cpu":
            # On CPU a host view shares the array's memory, which the next update overwrites in
            # place (donation) while the writer thread still reads it.
            tree = jax.tree.map(jnp.copy, tree)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(tree),
            position=ocp.args.JsonSave(_position_json(position)),
        )
        self._manager.save(step, args=items)

    def steps(self) -> tuple[int, ...]:
        """Return the steps with a durable training checkpoint, ascending."""
        return tuple(sorted(self._manager.all_steps()))

    def newest(self) -> int | None:
        """Return the newest step with a durable training checkpoint."""
        return self._manager.latest_step()

    def restore(self, step: int, abstract: dict[str, Any]) -> RestoredState:
        """Read the state after `step` into the shapes, dtypes and shardings of `abstract`.

        Raises AnhError where the checkpoint is missing or does not fit.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(_plain_key_shapes(abstract)),
            position=ocp.args.JsonRestore(),
        )
        try:
            found: Any = self._manager.restore(step, args=items)
            position = _position(found.position)
        except Exception as error:  # damaged arrays are told by `Exception` itself
            first = next(iter(str(error).splitlines()), repr(error))[:200]
            raise AnhError(
                f"{self._folder}: the training checkpoint of step {step} cannot be read ({first}); "
                "remove its folder to resume from the one before it"
            ) from error
        return RestoredState(step=step, state=_typed_keys(found.state, abstract), position=position)

    def wait(self) -> None:
        """Block until every save begun so far is durable; raises what the writer met."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish pending saves and release the manager's threads."""
        self._manager.wait_until_finished()
        self._manager.close()


def _position_json(position: Position) -> dict[str, Any]:
    written = {"row": position.row, "record": position.record}
    if position.bound is None:
        return written
    bound = position.bound
    # Hexadecimal: a resumed row must have every bit of the number.
    numbers = {"relative": hex_float(bound.relative), "norm": hex_float(bound.norm)}
    return {**written, "bound": {"step": bound.step, **numbers}}


def _position(written: dict[str, Any]) -> Position:
    bound = written.get("bound")
    return Position(
        row=written["row"],
        record=written["record"],
        bound=None
        if bound is None
        else BoundEstimate(
            int(bound["step"]), parse_hex_float(bound["relative"]), parse_hex_float(bound["norm"])
        ),
    )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain_keys(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _plain_key_shapes(abstract: Any) -> Any:
    def plain(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if not _is_key(leaf):
            return leaf
        data = jax.eval_shape(jax.random.key_data, leaf)
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=leaf.sharding)

    return jax.tree.map(plain, abstract)


def _typed_keys(tree: Any, abstract: Any) -> Any:
    def typed(leaf: Any, shape: jax.ShapeDtypeStruct) -> Any:
        return jax.random.wrap_key_data(leaf) if _is_key(shape) else leaf

    return jax.tree.map(typed, tree, abstract)
