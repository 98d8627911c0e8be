"""What the training loop asks for a digest: one protocol, whoever hashes.

A digest is started while the step's values are there and finished when nothing waits for it. In
between the next step may be dispatched, and may take the values' buffers away.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from numpy.typing import NDArray

from anh_jax.digest.compose import TreeDigest
from anh_jax.digest.exchange import Exchange, ReplicaError
from anh_jax.digest.frozen import FrozenTops
from anh_jax.digest.host import tree_digest
from anh_jax.digest.layout import lay_out
from attest.digest_tree import path_text
from attest.tensor_header import TensorHeader


@runtime_checkable
class PendingDigest(Protocol):
    """A digest under way; it needs none of the tree's buffers any more."""

    def result(self) -> TreeDigest:
        """Wait for the digest.

        Raises ReplicaError, naming the tensor, where replicas were compared and differ.
        """
        ...


@runtime_checkable
class Digester(Protocol):
    """Digests trees of arrays on this process's devices or on its host.

    `lag` is how many steps a caller should let pass between `start` and `result`: 0 where `start`
    has computed the digest already, 1 where a device computes it beside the next step. Every
    process of a mesh starts the same digests in the same order.
    """

    @property
    def lag(self) -> int:
        """Return the steps between `start` and `result`, 0 or 1."""
        ...

    def start(self, tree: Any, *, step: int, every_replica: bool = False) -> PendingDigest:
        """Begin to digest a tree; a donating call may follow at once.

        With `every_replica` each replica of a value is hashed and compared with the others: two
        devices that hold different bits of one value are silent data corruption. Raises AnhError
        for a tree that has no byte layout, or whose buffers are given away already.
        """
        ...


def committed_outputs(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the gradient root commits of a gradient program's outputs."""
    return {name: outputs[name] for name in ("gradient", "statistics")}


class HostDigest:
    """Digests on the host at once: `start` returns when the digest is there.

    `exchange` gathers digests over processes, or is None in one process. Large arrays that come
    back as the same objects, frozen weights, are hashed once.
    """

    def __init__(self, alg: str = "blake3", exchange: Exchange | None = None) -> None:
        self._alg = alg
        self._frozen = FrozenTops(alg)
        self._exchange = exchange

    @property
    def lag(self) -> int:
        """Return 0: there is nothing to wait for."""
        return 0

    def start(self, tree: Any, *, step: int, every_replica: bool = False) -> "FinishedDigest":
        """Digest a tree as `tree_digest` does.

        `every_replica` compares the replicas that lie on this process; each process hashes its
        own, so what processes hold differently shows in their rows. It reads frozen arrays again
        too. Raises ReplicaError.
        """
        if every_replica:
            compare_replicas(tree)
        frozen = None if every_replica else self._frozen
        digest = tree_digest(tree, step=step, alg=self._alg, exchange=self._exchange, frozen=frozen)
        return FinishedDigest(digest)


class FinishedDigest:
    """A digest that is there."""

    def __init__(self, digest: TreeDigest) -> None:
        self._digest = digest

    def result(self) -> TreeDigest:
        """Return the digest."""
        return self._digest


def compare_replicas(tree: Any) -> None:
    """Compare the bits of all copies of each element on this process; ReplicaError on the first."""
    laid = lay_out(tree)
    for slot, value in zip(laid.layout.slots, laid.values, strict=True):
        compare_shards(slot.header, value)


def compare_shards(header: TensorHeader, value: "jax.Array | NDArray") -> None:
    """Compare the bits of all copies of each element of one tensor on this process's host.

    Raises ReplicaError where two differ.
    """
    if not isinstance(value, jax.Array) or len(value.addressable_shards) == 1:
        return
    seen: dict[tuple[int, ...], tuple[object, NDArray[np.uint8]]] = {}
    for shard in value.addressable_shards:
        place = tuple(part.start or 0 for part in shard.index)
        bits = _bits(np.asarray(shard.data))
        first, known = seen.setdefault(place, (shard.device, bits))
        if not np.array_equal(known, bits):
            raise ReplicaError(
                f"digest: {path_text(header.path)}: {first} and {shard.device} hold different "
                "bits of the same elements; stop and resume from a training checkpoint"
            )


def _bits(array: NDArray[Any]) -> NDArray[np.uint8]:
    """View an array's bytes: compared as numbers, a NaN would differ from itself."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
