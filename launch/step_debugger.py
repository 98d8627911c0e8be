"""Stops in Python's debugger before a step is taken, with everything of the step at hand."""

import pdb

from anh_jax.audit.regeneration import Beginning
from anh_jax.audit.replay import kept_copy


def stop_before(begun: Beginning) -> None:
    """Open the debugger; `continue` takes the step, `quit` raises KeyboardInterrupt.

    The names at hand are those that docs/replay.md lists.
    """
    names = {
        "step": begun.signed.row.step,
        "row": begun.signed.row,
        "state": kept_copy(begun.before),
        "batch": begun.batch,
        "executor": begun.bench.executor,
        "programs": begun.bench.materials.programs.stored,
    }
    debugger = _Debugger(nosigint=True)
    debugger.message(f"before step {names['step']}; at hand: {', '.join(names)}")
    debugger.runctx("pass  # continue takes the step", names, {})
    if debugger.left:
        raise KeyboardInterrupt


class _Debugger(pdb.Pdb):
    """A debugger that knows whether it was left by `quit`, which `run` keeps to itself."""

    left = False

    def set_quit(self) -> None:
        """Remember that the step is not wanted."""
        self.left = True
        super().set_quit()
