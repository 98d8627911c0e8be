"""The page's building blocks; text is escaped here, so that no file's content becomes markup."""

import math
from collections.abc import Iterable, Sequence
from html import escape


def section(title: str, body: str) -> str:
    """Write a headed section; `body` is HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """Write names beside values."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{_value(value)}</dd>" for name, value in pairs)
    return f"<dl>{items}</dl>"


def _value(text: str) -> str:
    # Digests read better where every digit is equally wide.
    return f"<code>{escape(text)}</code>" if len(text) == 64 else escape(text)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table with a head."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f'<td class="number">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def duration(seconds: float) -> str:
    """Write seconds in the unit that reads best; a dash for nan."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:.3g} min"
