"""Digest trees on the devices that hold them, beside the next step."""

from collections.abc import Generator, Hashable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from anh_jax.digest.blake3_xla import blake3_tiles
from anh_jax.digest.compose import TreeDigest, compose
from anh_jax.digest.device_plan import DevicePlan, TreeHash, make_plan
from anh_jax.digest.device_program import DeviceRoots, Program, make_program
from anh_jax.digest.digester import compare_shards
from anh_jax.digest.exchange import ReplicaError
from anh_jax.digest.kernels import Kernels, xla_kernels
from anh_jax.digest.layout import LaidOut, Layout, lay_out
from anh_jax.digest.placement import place
from anh_jax.digest.sha256_xla import sha256_tiles
from anh_jax.digest.sources import Route, Source, bring, choose_mesh, find_source
from anh_jax.digest.tensor_cut import cut_tensor
from anh_jax.errors import AnhError
from attest.digest_tree import ALGORITHMS, MAX_STEP, path_text, refuse_algorithm
from attest.errors import AttestError

_REMEMBERED = 64
# Devices that an error names.
_NAMED = 8
# Enough compressions at a time to keep an accelerator busy; on CPU they would leave the cache.
_ACCELERATOR_LANES = 1 << 16


@dataclass(frozen=True, slots=True)
class Prepared:
    """Hold all that a tree's digest takes beside its values: made once, used at every step."""

    plan: DevicePlan
    sources: tuple[Source, ...]
    operands: Any
    program: Program
    notes: tuple[str, ...]


class DeviceDigest:
    """Digests on the devices that hold the values: `start` dispatches, and does not wait.

    One program is compiled for each layout (paths, shapes, dtypes, shardings), and another for
    steps at which every replica is hashed. The result is the same on every process of a mesh, so
    nothing is exchanged between hosts. `kernels` default to those of XLA, which run on any backend.
    """

    def __init__(self, alg: str = "blake3", kernels: Kernels | None = None) -> None:
        if alg not in ALGORITHMS:
            refuse_algorithm(alg)
        self._alg = alg
        self._kernels = kernels
        self._by_layout: dict[tuple[int, bool], tuple[Layout, Prepared]] = {}
        self._prepared: dict[Hashable, Prepared] = {}

    @property
    def alg(self) -> str:
        """Return the name of the hash."""
        return self._alg

    @property
    def lag(self) -> int:
        """Return 1: the devices compute a digest beside the next step."""
        return 1

    def start(self, tree: Any, *, step: int, every_replica: bool = False) -> "DevicePending":
        """Begin to digest a tree; a donating call may follow at once.

        Without `every_replica`, replicas share the work on large tensors; what several of them
        hash all the same is compared at every step. With it, replicas on other devices than most of
        the tree are compared on the host, which waits for them.

        Raises:
            AnhError: for a tree or step that has no byte layout, for buffers that are given away
                already, for arrays that no one mesh holds.
            ReplicaError: for replicas compared on the host that differ.
        """
        laid = read_values(tree, step)
        pending = self.start_laid(laid, every_replica=every_replica)
        return DevicePending(pending, laid.layout, step, self._alg)

    def start_laid(self, laid: LaidOut, *, every_replica: bool = False) -> "PendingTops":
        """Begin to hash the tiles of tensors that are laid out already; errors as `start` says."""
        prepared = self._prepare(laid, every_replica)
        if every_replica:
            _compare_elsewhere(laid, prepared)
        with _settings(prepared):
            roots = prepared.program(_values(laid, prepared), prepared.operands)
        roots.roots.copy_to_host_async()
        roots.any_differs.copy_to_host_async()
        return PendingTops(laid.layout, prepared, roots)

    def lower(self, tree: Any, *, every_replica: bool = False) -> jax.stages.Lowered:
        """Return the program for trees of this layout, to read what it compiles to and needs."""
        laid = read_values(tree, 0)
        prepared = self._prepare(laid, every_replica)
        with _settings(prepared):
            return prepared.program.lower(_values(laid, prepared), prepared.operands)

    def _prepare(self, laid: LaidOut, every_replica: bool) -> Prepared:
        by_layout = (id(laid.layout), every_replica)
        known = self._by_layout.get(by_layout)
        if known is not None:
            return known[1]
        # A tree with numpy arrays has a new layout each time: it is known again by its tensors.
        mesh = choose_mesh(laid.values)
        headers = tuple(slot.header for slot in laid.layout.slots)
        sources = tuple(map(lambda h, v: find_source(mesh, h, v), headers, laid.values))
        key = (mesh, headers, sources, every_replica)
        prepared = self._prepared.get(key)
        if prepared is None:
            placements = [
                place(mesh, source.held, header, every_replica=every_replica)
                for header, source in zip(headers, sources, strict=True)
            ]
            cuts = [cut_tensor(mesh, h, p) for h, p in zip(headers, placements, strict=True)]
            tree_hash = self._hash(mesh.mesh.devices.flat[0].platform)
            plan = make_plan(tree_hash, mesh, cuts)
            notes = [source.note for source in sources] + [each.note for each in placements]
            prepared = Prepared(
                plan,
                sources,
                _everywhere(plan),
                make_program(tree_hash, plan),
                tuple(note for note in notes if note is not None),
            )
            _remember(self._prepared, key, prepared)
        _remember(self._by_layout, by_layout, (laid.layout, prepared))
        return prepared

    def _hash(self, platform: str) -> TreeHash:
        lanes = xla_kernels().lanes if platform == "cpu" else _ACCELERATOR_LANES
        if self._alg == "sha256":
            return sha256_tiles(lanes)
        return blake3_tiles(self._kernels or xla_kernels(lanes))


def read_values(tree: Any, step: int) -> LaidOut:
    """Lay a tree out; AnhError for a tree or a step that has no byte layout."""
    if isinstance(step, bool) or not 0 <= step <= MAX_STEP:
        raise AnhError(f"digest: step {step!r} is not a count of completed steps")
    try:
        return lay_out(tree)
    except AttestError as error:
        raise AnhError(f"digest: {error}") from error


class DevicePending:
    """A digest that devices compute; it holds no buffer of the tree."""

    def __init__(self, tops: "PendingTops", layout: Layout, step: int, alg: str) -> None:
        self._tops = tops
        self._layout = layout
        self._step = step
        self._alg = alg

    def result(self) -> TreeDigest:
        """Wait for the digest; ReplicaError if devices hold different bits, naming both."""
        tops, notes = self._tops.result(), self._tops.notes
        return compose(self._layout, tops, step=self._step, alg=self._alg, notes=notes)


class PendingTops:
    """The roots of tensors' tiles, that devices compute; it holds no buffer of them."""

    def __init__(self, layout: Layout, prepared: Prepared, roots: DeviceRoots) -> None:
        self._layout = layout
        self._prepared = prepared
        self._roots = roots

    @property
    def notes(self) -> tuple[str, ...]:
        """Return which tensors were cut anew or moved to be hashed."""
        return self._prepared.notes

    def result(self) -> dict[bytes, bytes]:
        """Wait for the 32-byte root of each tensor's tiles, by its path bytes.

        Raises:
            ReplicaError: if devices hold different bits of one value, naming both.
        """
        if np.asarray(self._roots.any_differs):
            self._refuse()
        words = np.asarray(self._roots.roots).astype("<u4", copy=False)
        slots = self._layout.slots
        return {slot.path_bytes: row.tobytes() for slot, row in zip(slots, words, strict=True)}

    def _refuse(self) -> None:
        differs = np.asarray(self._roots.differs)
        tensor = int(differs.any(axis=1).argmax())
        plan = self._prepared.plan
        blocks = plan.mesh.blocks(plan.tensors[tensor].placement.cut)
        others = differs[tensor].nonzero()[0]
        first = int((blocks == blocks[others[0]]).argmax())
        devices = plan.mesh.mesh.devices.reshape(-1)
        named = ", ".join(map(str, devices[others[:_NAMED]]))
        more = f" (and {len(others) - _NAMED} more)" if len(others) > _NAMED else ""
        # With two gathers, groups of devices are compared once their blocks are merged.
        which = "some of " if len(plan.gathers) > 1 else ""
        name = path_text(self._layout.slots[tensor].header.path)
        raise ReplicaError(
            f"digest: {name}: {which}{named}{more} and {devices[first]} hold different bits of the "
            "same elements; stop and resume from a training checkpoint"
        )


@contextmanager
def _settings(prepared: Prepared) -> Generator[None]:
    """Trace and run as planned, whatever mesh and settings of JAX are the caller's."""
    with (
        jax.set_mesh(prepared.plan.mesh.mesh),
        jax.numpy_rank_promotion("allow"),
        jax.disable_jit(False),
    ):
        yield


def _values(laid: LaidOut, prepared: Prepared) -> list[jax.Array]:
    """Return the values of all tensors that have elements, on the plan's mesh."""
    return [
        bring(prepared.plan.mesh, source, slot.header, value)
        for slot, source, value in zip(
            laid.layout.slots, prepared.sources, laid.values, strict=True
        )
        if 0 not in slot.header.dims
    ]


def _compare_elsewhere(laid: LaidOut, prepared: Prepared) -> None:
    """Compare the replicas of which only one reaches the plan's mesh."""
    for slot, source, value in zip(laid.layout.slots, prepared.sources, laid.values, strict=True):
        if source.route in (Route.MOVED, Route.COPIED):
            compare_shards(slot.header, value)


def _everywhere(plan: DevicePlan) -> Any:
    """Put a plan's numbers on every device of its mesh; every process has the same."""
    sharding = NamedSharding(plan.mesh.mesh, PartitionSpec())
    return jax.tree.map(
        lambda numbers: jax.make_array_from_callback(
            numbers.shape, sharding, lambda index: numbers[index]
        ),
        plan.operands,
    )


def _remember(known: dict[Any, Any], key: Hashable, value: object) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value
