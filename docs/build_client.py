"""Build the light client as one file, `anh-verify.pyz`: `python docs/build_client.py [OUT]`.

It holds the sources that `attest.standalone` imports, as they are, and needs Python and PyNaCl. The
same sources give the same bytes on every machine: files in order, nothing compressed, no clock.
"""

import ast
import io
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENTRY = "attest.standalone"
_MAIN = f"import sys\n\nfrom {ENTRY} import main\n\nsys.exit(main())\n"
# The earliest time that a zip file can give.
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX, _MODE = 3, 0o100644 << 16


def modules() -> dict[str, bytes]:
    """Return the sources of the client by their paths: the entry and all of ours it imports."""
    found: dict[str, bytes] = {}
    waiting = [ENTRY, "attest"]
    while waiting:
        path = _path(waiting.pop())
        if path is None or path.relative_to(ROOT).as_posix() in found:
            continue
        source = path.read_bytes()
        found[path.relative_to(ROOT).as_posix()] = source
        waiting += _imported(source)
    return dict(sorted(found.items()))


def build() -> bytes:
    """Return the file's bytes."""
    packed = io.BytesIO()
    packed.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
        for name, data in {"__main__.py": _MAIN.encode(), **modules()}.items():
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system, entry.external_attr = _UNIX, _MODE
            archive.writestr(entry, data)
    return packed.getvalue()


def _imported(source: bytes) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # What is imported from a package may be a module of it.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    ours = [name.split(".") for name in names if name.split(".")[0] == "attest"]
    return [".".join(parts[:n]) for parts in ours for n in range(1, len(parts) + 1)]


def _path(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "anh-verify.pyz")
    target.write_bytes(build())
    target.chmod(0o755)
    print(f"wrote {target}, {target.stat().st_size:,} bytes")
