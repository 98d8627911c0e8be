"""Judges a refutation of a run's start: `init` is run, and one element of what it gives compared.

Only an `init` of exact operators is judged so: those give the same bits on every machine.
"""

from dataclasses import dataclass

import jax
import numpy as np

from anh_jax.audit.step_refutation import Array
from anh_jax.audit.stranger_program import check_straight, stranger_program
from anh_jax.errors import ProgramError
from anh_jax.program.init_check import init_kind
from anh_jax.program.interpret import read_stored
from anh_jax.program.signature import StoredProgram
from anh_jax.program.tree import Path, leaves_of
from anh_jax.training.state import seed_words
from attest.init_refutation import InitRefutation, ShownInit, verify_init_refutation
from attest.opened_element import Element, place_of


@dataclass(frozen=True)
class JudgedInit:
    """What running `init` gave: `words` say what is wrong, empty where nothing is."""

    shown: ShownInit
    words: str


def judge_init(file: InitRefutation) -> JudgedInit:
    """Check a refutation of a run's start and run `init` for the tensor it is about.

    Raises RefusedError where a signature or the opening does not hold, FormatError or ProgramError
    where a part is none, or the program is not exact everywhere.
    """
    shown = verify_init_refutation(file)
    stored = stranger_program(file.signature, file.artifact)
    if init_kind(stored) != "exact":
        raise ProgramError("program init: may round otherwise elsewhere; it refutes nothing here")
    path = shown.shown.header.path
    try:
        drawn = init_bits(stored, file.signed.contract.seed, only=path)
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as e:
        raise ProgramError(f"program init: cannot be run ({type(e).__name__})") from e
    found = next((array for own, array in drawn.items() if own == path), None)
    return JudgedInit(shown, _difference(shown, found, file.element))


def init_bits(
    stored: StoredProgram, seed: int, *, only: tuple[str | int, ...] | None = None
) -> dict[Path, Array]:
    """Return what `init` gives for a seed by path, keys as their words; of one path if asked.

    Raises ProgramError where the program loops or branches.
    """
    interpreted = read_stored(stored)
    check_straight(interpreted.program)

    def wanted(words: jax.Array) -> dict[Path, jax.Array]:
        leaves = leaves_of(interpreted(words))
        return {
            path: jax.random.key_data(leaf)
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
            for path, leaf in leaves.items()
            if only is None or path == only
        }

    # Compiled as a whole, what leads to other tensors is left out.
    return {path: np.asarray(x) for path, x in jax.jit(wanted)(seed_words(seed)).items()}


def _difference(shown: ShownInit, drawn: Array | None, element: int) -> str:
    if drawn is None:
        return f"{shown.name}: state 0 holds it, and init gives no such tensor"
    found: Element = shown.shown
    header = found.header
    if (header.dims, header.dtype) != (drawn.shape, drawn.dtype.name):
        return f"{shown.name}: is {header.dtype}{list(header.dims)} in state 0, init gives another"
    ours = drawn[place_of(element, header.dims)]
    if ours.tobytes() == found.data:
        return ""
    theirs = np.frombuffer(found.data, drawn.dtype)[0]
    return f"{shown.name}: element {element} of state 0 is {theirs!r}, init gives {ours!r}"
