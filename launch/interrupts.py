"""Ctrl-C: the first asks for a training checkpoint and an end, the second ends at once."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupts:
    """Counts Ctrl-C while it is entered; does nothing outside the main thread.

    The second one raises KeyboardInterrupt in the main thread.
    """

    def __init__(self) -> None:
        self._count = 0
        self._before: Any = None

    @property
    def asked(self) -> bool:
        """Tell whether Ctrl-C has been pressed."""
        return self._count > 0

    def __enter__(self) -> Self:
        """Start to count."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signal back to whoever had it."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1:
            raise KeyboardInterrupt
