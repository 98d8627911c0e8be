"""Says on stderr how far a long check of a log is, one line at a time."""

from collections.abc import Callable

import click

_EVERY_SECONDS = 10.0


class FsckProgress:
    """Say nothing in the first ten seconds, and a line every ten after that."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = self._said = clock()

    def reached(self, done: int, total: int) -> None:
        """Take note of how many entries are checked, of how many."""
        now = self._clock()
        if now - self._said < _EVERY_SECONDS:
            return
        self._said = now
        rate = done / (now - self._began)
        left = (total - done) / rate
        click.echo(
            f"checked {done:,} of {total:,} entries, {rate:,.0f} a second, {left:,.0f} s to go",
            err=True,
        )
