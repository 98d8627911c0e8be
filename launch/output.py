"""What commands print: text or JSON on stdout, progress on stderr, colour only on a terminal."""

import enum
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

import click


class Form(enum.Enum):
    """How a command answers: lines for people or one JSON object for programs."""

    TEXT = "text"
    JSON = "json"


class Tone(enum.Enum):
    """What a word means, hence its colour on a terminal."""

    GOOD = "green"
    DOUBTFUL = "yellow"
    BAD = "red"
    QUIET = "bright_black"


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`; the command receives `form: Form`."""
    return click.option(
        "--json",
        "form",
        flag_value=Form.JSON,
        type=click.UNPROCESSED,
        default=Form.TEXT,
        help="Print one JSON object instead of text.",
    )(command)


def emit(form: Form, document: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Print `document` as JSON or `lines` as text to stdout."""
    if form is Form.JSON:
        click.echo(json.dumps(document, sort_keys=True, ensure_ascii=True))
        return
    for line in lines:
        click.echo(line)


def printable(text: str) -> str:
    """Replace control characters, so that a file's content cannot drive the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def coloured(stream: TextIO) -> bool:
    """Tell whether `stream` takes colour: a terminal, and NO_COLOR unset (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def toned(text: str, tone: Tone) -> str:
    """Colour `text` where stdout takes colour."""
    return click.style(text, fg=tone.value) if coloured(sys.stdout) else text


def table(rows: Iterable[tuple[str, str]], *, indent: int = 2) -> list[str]:
    """Align pairs of name and value into lines."""
    pairs = list(rows)
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"{' ' * indent}{name:<{width}}  {value}".rstrip() for name, value in pairs]


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Flatten nested mappings and lists into `a.b.0` names and texts."""
    if isinstance(value, Mapping):
        pairs = ((str(name), item) for name, item in value.items())
    elif isinstance(value, list | tuple):
        pairs = ((str(index), item) for index, item in enumerate(value))
    else:
        return {prefix: "none" if value is None else str(value)}
    found: dict[str, str] = {}
    for name, item in pairs:
        found |= flat(item, f"{prefix}.{name}" if prefix else name)
    return found


class Progress(Protocol):
    """Show how far a long command is, as a context manager."""

    def __enter__(self) -> Self:
        """Start to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal clean."""
        ...

    def note(self, line: str) -> None:
        """Print one line above the bar."""
        ...

    def reached(self, done: int, figures: Mapping[str, float]) -> None:
        """Show that `done` of the total are done, with a few current figures."""
        ...


def progress(title: str, *, total: int, done: int = 0) -> Progress:
    """Return a bar on a terminal, plain lines elsewhere; both write to stderr.

    `total` and `done` count the same unit (steps). Without the rich package, lines it is.
    """
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        try:
            from launch.progress_bar import ProgressBar

            return ProgressBar(title, total=total, done=done)
        except ModuleNotFoundError:
            pass  # rich comes with the train extra; the plain lines say the same
    return ProgressLines(title, total=total, done=done)


@dataclass
class ProgressLines:
    """Print a line at most every `every_seconds`, and one for the last step."""

    title: str
    total: int
    done: int = 0
    every_seconds: float = 5.0
    clock: Callable[[], float] = time.monotonic
    _last: float | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        """Start the clock."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave nothing behind: every line is complete."""

    def note(self, line: str) -> None:
        """Print the line as it is."""
        print(line, file=sys.stderr, flush=True)

    def reached(self, done: int, figures: Mapping[str, float]) -> None:
        """Print `title step 10/100 loss 0.5`, unless the last line is too young."""
        now = self.clock()
        if self._last is not None and done < self.total and now - self._last < self.every_seconds:
            return
        self._last = now
        self.note(f"{self.title} {done}/{self.total} {figures_text(figures)}".rstrip())


def figures_text(figures: Mapping[str, float]) -> str:
    """Format figures as `name value` pairs with four significant digits."""
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
