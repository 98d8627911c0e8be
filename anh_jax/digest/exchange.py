"""Complete the digests of arrays that are spread over processes; only digests cross."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from anh_jax.digest.tiles import Bytes
from anh_jax.digest.tree import Leaf
from anh_jax.errors import AnhError
from attest.digest_tree import path_text

# Gather over processes: (digests uint32[n, 8], owned bool[n]) -> all digests uint32[n, 8], where
# each row may come from any process that owns it. Every process calls it once per digest.
Exchange: TypeAlias = Callable[[NDArray[np.uint32], NDArray[np.bool_]], NDArray[np.uint32]]


class ReplicaError(AnhError):
    """Report that processes hold different bits of one replicated value."""

    exit_code: int = 1


@dataclass(frozen=True, slots=True)
class Subtrees:
    """Hold the digests uint8[*blocks, 32] of one tensor's subtrees and the merges above them.

    `owned` marks those hashed by this process; `complete` says, alike on every process, whether
    each of them owns all.
    """

    leaf: Leaf
    digests: Bytes
    owned: NDArray[np.bool_]
    axes: tuple[int, ...]
    complete: bool


def completed(held: Sequence[Subtrees], exchange: Exchange | None) -> list[Subtrees]:
    """Fill in what other processes own, all tensors in one exchange.

    Raises:
        AnhError: if an exchange is needed and missing, or returns another shape.
        ReplicaError: if it returns another digest for something this process owns.
    """
    spread = [subtrees for subtrees in held if not subtrees.complete]
    if not spread:
        return list(held)
    names = ", ".join(path_text(subtrees.leaf.header.path) for subtrees in spread[:3])
    if exchange is None:
        raise AnhError(f"digest: {names}: spread over processes; pass an exchange of digests")
    local = np.concatenate([_words(subtrees.digests) for subtrees in spread])
    owned = np.concatenate([subtrees.owned.reshape(-1) for subtrees in spread])
    gathered = np.asarray(exchange(local, owned))
    if gathered.shape != local.shape or gathered.dtype != np.uint32:
        raise AnhError(
            f"digest: the exchange returned {gathered.dtype}{list(gathered.shape)}, "
            f"not uint32{list(local.shape)}; return one row per row given"
        )
    _check_replicas(spread, local, owned, gathered)
    ends = np.cumsum([subtrees.owned.size for subtrees in spread])[:-1]
    filled = {
        subtrees.leaf.path_bytes: replace(subtrees, digests=_bytes(part, subtrees), complete=True)
        for subtrees, part in zip(spread, np.split(gathered, ends), strict=True)
    }
    return [filled.get(subtrees.leaf.path_bytes, subtrees) for subtrees in held]


def _check_replicas(
    spread: Sequence[Subtrees],
    local: NDArray[np.uint32],
    owned: NDArray[np.bool_],
    gathered: NDArray[np.uint32],
) -> None:
    differs = owned & (local != gathered).any(axis=1)
    start = 0
    for subtrees in spread:
        stop = start + subtrees.owned.size
        if differs[start:stop].any():
            raise ReplicaError(
                f"digest: {path_text(subtrees.leaf.header.path)}: this process and another hold "
                "different bits of the same elements; stop and resume from a training checkpoint"
            )
        start = stop


def _words(digests: Bytes) -> NDArray[np.uint32]:
    """View digests as the eight little endian words each is made of."""
    return digests.reshape(-1).view("<u4").astype(np.uint32, copy=False).reshape(-1, 8)


def _bytes(words: NDArray[np.uint32], subtrees: Subtrees) -> Bytes:
    little = np.ascontiguousarray(words).astype("<u4", copy=False)
    return little.view(np.uint8).reshape(subtrees.digests.shape)
