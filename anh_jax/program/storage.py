"""Stored programs as files: `<name>.stablehlo`, `<name>.json`, and `<name>.named.stablehlo`."""

from pathlib import Path as FilePath

from anh_jax.errors import ProgramError
from anh_jax.program.signature import ProgramSignature, StoredProgram


def save_program(stored: StoredProgram, directory: FilePath) -> None:
    """Write a program's files; files already there with other content are refused.

    Raises:
        ProgramError: another program of that name lies there, or the files cannot be written.
    """
    contents = {
        f"{stored.name}.json": stored.signature.to_bytes(),
        f"{stored.name}.stablehlo": stored.artifact,
    }
    if stored.named is not None:
        contents[f"{stored.name}.named.stablehlo"] = stored.named
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            _write(directory / name, data)
    except OSError as error:
        raise ProgramError(f"program {stored.name}: cannot be written: {error}") from error


def read_program(directory: FilePath, name: str, *, id: str) -> StoredProgram:
    """Read the program `name` and check that it is the one with this id.

    The id is compared before the artifact is parsed. A named copy is taken along where there is
    one; loading checks it.

    Raises:
        ProgramError: files are missing, damaged, or another program's.
    """
    named = directory / f"{name}.named.stablehlo"
    try:
        signature = ProgramSignature.from_bytes((directory / f"{name}.json").read_bytes())
        artifact = (directory / f"{name}.stablehlo").read_bytes()
        names = named.read_bytes() if named.exists() else None
    except OSError as error:
        raise ProgramError(f"program {name}: cannot be read: {error}") from error
    stored = StoredProgram(artifact, signature, names)
    if stored.id != id or stored.name != name:
        raise ProgramError(
            f"program {name}: the files in {directory} are {stored.name} {stored.id[:16]},"
            f" the contract names {id[:16]}; restore the contract's files"
        )
    return stored


def _write(path: FilePath, data: bytes) -> None:
    if path.exists() and path.read_bytes() != data:
        raise ProgramError(f"{path}: holds other content; choose another directory")
    path.write_bytes(data)
