"""Write the list of files in architecture.md from the modules' own first sentences.

Run it as `python docs/write_modules.py`; tests/test_docs.py compares.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = ("anh_jax", "attest", "launch")
_BEGIN, _END = "<!-- files -->\n", "<!-- end of files -->\n"
_SENTENCE = re.compile(r".*?[.!?](?=\s|$)", re.DOTALL)


def document() -> str:
    """Return the page with the list as it should be."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + "\n".join(_listed()) + "\n" + _END + after


def modules() -> list[str]:
    """Return the paths of all modules that the list names."""
    return [path.relative_to(ROOT).as_posix() for folder in _folders() for path in _files(folder)]


def _listed() -> Iterator[str]:
    for folder in _folders():
        files = _files(folder)
        if not files:
            continue
        package = folder / "__init__.py"
        about = f": {_first(package)}" if package.exists() and _first(package) else ""
        yield f"\n**`{folder.relative_to(ROOT).as_posix()}/`**{about}\n"
        yield "| file | what it is |\n|---|---|"
        yield from (f"| `{path.name}` | {_first(path)} |" for path in files)


def _folders() -> list[Path]:
    found = [ROOT / room for room in ROOMS]
    inner = [path.parent for room in found for path in room.rglob("*.py")]
    return sorted({*found, *inner})


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")


def _first(path: Path) -> str:
    """Return the first sentence of a module's docstring in one line, fit for a table."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    match = _SENTENCE.match(text)
    sentence = match[0] if match else text.partition("\n\n")[0]
    return " ".join(sentence.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(document(), encoding="utf-8")
