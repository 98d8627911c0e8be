"""Evidence of two stories as a file: what a check found is worth what others can check again."""

from pathlib import Path

from attest.durable_file import make_directory, replace_file
from attest.errors import EquivocationError
from launch.key_home import key_folder


def keep_evidence(error: EquivocationError, name: str) -> EquivocationError:
    """Write an error's evidence to `evidence/<name>.json` beside the keys; return it with the path.

    An error whose evidence is no bytes is returned as it is.
    """
    if not isinstance(error.evidence, bytes):
        return error
    path: Path = key_folder().parent / "evidence" / f"{name}.json"
    make_directory(path.parent)
    replace_file(path, error.evidence)
    return EquivocationError(f"{error}; both are in {path}", evidence=path)
