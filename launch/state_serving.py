"""Serves a run's states and gradients, each made again when it is asked for.

Trees are made in the main thread, where Ctrl-C arrives; requests are answered in others.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from anh_jax.errors import AnhError
from launch.output import progress
from launch.replaying import Opened, SignedTree, opened_run
from launch.state_server import StateServer
from launch.state_shelf import Shelf, Waiting, Wish

_LOOK_SECONDS = 1.0


def serve(
    directory: Path,
    *,
    port: int,
    steps: frozenset[int],
    token: str | None,
    began: Callable[[StateServer, Opened], None],
) -> None:
    """Serve until Ctrl-C; `steps` are those to show, all where it is empty.

    `began` is called once requests are answered. Raises CommandError where the port is taken.
    """
    shelves: list[Shelf] = []

    def watch(step: int) -> None:
        for shelf in shelves:
            shelf.tell(f"replaying step {step}", step)

    with opened_run(directory, watch) as opened:
        shelf = Shelf(lambda wish: why_not(opened, steps, wish))
        shelves.append(shelf)
        with progress("replay", total=opened.steps) as bar:
            server = StateServer(port, shelf, token=token, told=bar.note)
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                began(server, opened)
                _make_for_ever(opened, shelf, bar.note)
            finally:
                server.shutdown()
                server.server_close()


def why_not(opened: Opened, steps: frozenset[int], wish: Wish) -> str:
    """Say why a tree is not shown; empty where it is.

    A step's trees are its gradient and the states before and after it.
    """
    near = {wish.step, wish.step + 1} if wish.part == "state" else {wish.step}
    if steps and not near & steps:
        return f"{wish.part} {wish.step} is of no step that is served here"
    return opened.why_not(wish)


def make(opened: Opened, wish: Wish) -> dict[Wish, SignedTree]:
    """Make a tree again, with what comes along; raises RefutedError where it is another."""
    if wish.part == "state":
        # Steps taken later give the buffers of the state that the replay holds away.
        from anh_jax.audit.replay import kept_copy

        return {wish: SignedTree(kept_copy(opened.regeneration.state(wish.step)), opened, wish)}
    made = opened.regeneration.step(wish.step)
    opened.regeneration.check(made)
    committed = {name: made.outputs[name] for name in ("gradient", "statistics")}
    trees = {wish: SignedTree(committed, opened, wish)}
    after = Wish("state", wish.step)
    if not opened.why_not(after):
        trees[after] = SignedTree(made.after, opened, after)
    return trees


def _make_for_ever(opened: Opened, shelf: Shelf, note: Callable[[str], None]) -> None:
    while True:
        wish = shelf.next_wish(seconds=_LOOK_SECONDS)
        if wish is None or not isinstance(shelf.find(wish), Waiting):
            continue
        note(f"making {wish.part} {wish.step} again")
        shelf.tell(f"making {wish.part} {wish.step} again", wish.step)
        try:
            trees = make(opened, wish)
        except AnhError as error:
            # Nothing that is not the committed tree is shown, signed or not.
            note(f"{wish.part} {wish.step} is not shown: {error}")
            shelf.refuse(wish, str(error)[:300])
            continue
        for known, tree in reversed(trees.items()):
            shelf.put(known, tree)
