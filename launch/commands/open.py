"""`anh open`: one tile of a state as a file that anyone can check."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launch.errors import CheckFailed, CommandError
from launch.output import Form, emit, json_option, printable

if TYPE_CHECKING:
    from anh_jax.line import Line


@click.command(name="open")
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@click.option("--step", type=int, required=True, help="Steps completed; 0 is the fresh state.")
@click.option("--tensor", metavar="PATH", required=True, help="For example parameters/out/bias.")
@click.option("--tile", metavar="I", required=True, help="Tile number, or i,j,... on the grid.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write the file.")
@json_option
def command(
    *, directory: Path, step: int, tensor: str, tile: str, output: Path | None, form: Form
) -> None:
    """Open one tile of a state as a file that anyone can check.

    The state comes from a training checkpoint that D retains for that step. Check the file with
    `anh verify FILE --policy P --proof D/run.proof` once the run is final.
    """
    from launch.step_numbers import read_step

    numbers = read_step(directory, step)
    if numbers.state_root is None:
        raise CommandError(_skipped(directory, step, numbers.total))
    name = f"opened-{step}-{tensor.replace('/', '.')}-{tile.replace(',', '.')}.json"
    path = Path(name) if output is None else output
    data = _opened(directory, step, tensor, tile, numbers.state_root)
    with path.open("xb") as stream:
        stream.write(data)
    document = {"file": str(path), "step": step, "tensor": tensor, "bytes": len(data)}
    emit(form, document, [printable(f"wrote {path} ({len(data):,} bytes)")])


def _skipped(directory: Path, step: int, total: int) -> str:
    """Say which steps could be opened instead of one whose state was not digested."""
    from anh_jax.run_directory import RunDirectory
    from launch.step_numbers import nearest_with_state_root, retained_steps

    kept = retained_steps(RunDirectory.open(directory))
    digested = nearest_with_state_root(directory, step, range(total + 1))
    openable = nearest_with_state_root(directory, step, kept)
    words = f"--step {step}: the digest policy skips the state of this step; the nearest that has a"
    words += f" state root is step {digested}"
    if openable is None:
        return f"{words}; no training checkpoint retains one"
    return f"{words}, the nearest that a training checkpoint retains step {openable}"


def _opened(directory: Path, step: int, tensor: str, tile: str, root: str) -> bytes:
    from launch.retained_state import read_state

    state = read_state(directory, step)
    from anh_jax.attested_run import genesis_of, run_id
    from anh_jax.digest.host import tree_digest
    from anh_jax.digest.opening import open_tile
    from anh_jax.line import walk_line
    from anh_jax.run_directory import RunDirectory
    from attest.opening import Opening
    from attest.tensor_header import TensorHeader
    from launch.opened_tile import OpenedTile

    run = RunDirectory.open(directory)
    if not run.has_statement("final"):
        raise CommandError(f"{directory}: the run is not final, so nothing commits to its line yet")
    digest = tree_digest(state, step=step, alg=genesis_of(run).alg)
    if digest.root.hex() != root:
        raise CheckFailed(
            f"{run.checkpoints}: the retained state of step {step} is not the one signed "
            f"({digest.root.hex()[:16]}, signed {root[:16]})"
        )
    headers = {
        "/".join(map(str, found.path)): TensorHeader.from_bytes(found.header)
        for found in digest.tensors
    }
    header = headers.get(tensor)
    if header is None:
        raise CommandError(f"--tensor {tensor}: no such path; {_nearest(tensor, list(headers))}")
    index = tile_index(tile, header.grid)
    opening = Opening.from_bytes(open_tile(state, digest, path=header.path, index=index))
    line = walk_line(run, run_id=bytes.fromhex(run_id(run)))
    row = None if step == 0 else line.rows[step - 1].row
    return OpenedTile(run_id(run), opening, row, _line_path(line, step)).to_bytes()


def _line_path(line: "Line", step: int) -> tuple[bytes, ...]:
    """Return the row's RFC 6962 path among the rows signed so far; none for state 0."""
    from attest.merkle import inclusion_path, leaf_hash

    if step == 0:
        return ()
    hashes = [leaf_hash(row) for row in line.hashes]
    return tuple(inclusion_path(step, len(hashes), hashes))


def tile_index(text: str, grid: tuple[int, ...]) -> tuple[int, ...]:
    """Read `I`: one number counts the tiles row by row, `i,j,...` names one on each axis."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise CommandError(f"--tile {text}: write one number, or {len(grid)} joined by commas")
    numbers = tuple(int(part) for part in parts)
    if len(numbers) != 1 or len(grid) == 1:
        if len(numbers) != len(grid) or any(i >= n for i, n in zip(numbers, grid, strict=True)):
            raise CommandError(f"--tile {text}: outside the grid {' x '.join(map(str, grid))}")
        return numbers
    flat, index = numbers[0], list[int]()
    for extent in reversed(grid):
        flat, place = divmod(flat, extent)
        index.append(place)
    if flat:
        raise CommandError(f"--tile {text}: outside the grid {' x '.join(map(str, grid)) or '1'}")
    return tuple(reversed(index))


def _nearest(wanted: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
    return f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known[:6])}"
