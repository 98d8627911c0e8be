"""States and gradients from a server, checked tile by tile as they arrive: a source for audits.

The manifest must have the committed digest before anything else is asked for; then each tensor's
tile digests must lead to its root, and each tile to its digest. A tile that is wrong is asked for
again, and named if it stays wrong. What arrived lies in a folder, so an audit that was stopped
goes on where it was.
"""

import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from anh_jax.audit.shown_tree import Leaf, RunNames, is_key, leaves_shown, read_shown
from anh_jax.audit.state_source import Answer, Asked, Withheld, WithheldError
from anh_jax.digest.hashes import bulk_hashes
from anh_jax.digest.merge import merge_top
from anh_jax.digest.served import DIGEST_BYTES, split_digests, tensor_size, tile_index
from anh_jax.program.tree import Tree, empty_nodes, from_leaves
from anh_jax.training.state import State
from attest.digest_tree import path_text
from attest.served_tree import MAX_BYTES, TreeManifest
from attest.tensor_header import TensorHeader
from launch.state_client import NoAnswerError, RefusedAnswerError, StateClient
from launch.state_tiles import TensorFile

CHUNK_BYTES = 4 << 20
"""Bytes asked for at once."""

TILE_TRIES = 3
_KEEP_COMPLETE = 3
_SAVE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class _Order:
    """A tensor of a tree that is asked for; `base` is the path of the tree on the server."""

    asked: Asked
    base: str
    index: int
    header: TensorHeader

    @property
    def name(self) -> str:
        return path_text(self.header.path)


class ServedStates:
    """The states and gradients that a server shows; `told` is called with bytes as they arrive."""

    def __init__(
        self,
        client: StateClient,
        names: RunNames,
        folder: Path,
        *,
        told: Callable[[str, int, int], None] = lambda name, done, total: None,
    ) -> None:
        self._client = client
        self._names = names
        self._hashes = bulk_hashes(names.alg)
        self._folder = folder / names.run[:16]
        self._told = told
        self._complete: OrderedDict[str, Path] = OrderedDict()

    def state(self, asked: Asked, abstract: Tree) -> State:
        """Return the committed state of a step; raises WithheldError where it is not shown."""
        return self._tree(asked, abstract)

    def outputs(self, asked: Asked, abstract: Tree) -> Tree:
        """Return `gradient` and `statistics`; raises WithheldError where they are not shown."""
        return self._tree(asked, {name: abstract[name] for name in ("gradient", "statistics")})

    def close(self) -> None:
        """Hang up, and remove what arrived whole; parts of trees stay for another time."""
        self._client.close()
        for folder in self._complete.values():
            shutil.rmtree(folder, ignore_errors=True)

    def _tree(self, asked: Asked, abstract: Tree) -> Tree:
        base = f"/v1/{asked.part}/{asked.step}"
        folder = self._folder / asked.committed
        folder.mkdir(parents=True, exist_ok=True)
        manifest = self._manifest(asked, base, folder)
        leaves = leaves_shown(manifest, asked, abstract)
        total = sum(tensor_size(leaf.header) for leaf in leaves.values())
        done, values = 0, {}
        for path, leaf in leaves.items():
            order = _Order(asked, base, leaf.index, leaf.header)
            file = self._file(order, manifest, leaf, folder)
            values[path] = _placed(self._filled(order, file, done, total), leaf)
            done += tensor_size(leaf.header)
        self._keep(asked.committed, folder)
        return from_leaves(values, empty_nodes(abstract))

    def _manifest(self, asked: Asked, base: str, folder: Path) -> TreeManifest:
        kept = folder / "manifest.json"
        if kept.is_file():
            return read_shown(kept.read_bytes(), asked, self._names).manifest
        data = self._ask(asked, lambda: self._client.get(f"{base}/manifest", limit=MAX_BYTES))
        shown = read_shown(data, asked, self._names)
        kept.write_bytes(data)
        return shown.manifest

    def _file(self, order: _Order, manifest: TreeManifest, leaf: Leaf, folder: Path) -> TensorFile:
        """Open the file of a tensor, with the digests that its tiles must have."""
        stem, header = folder / str(order.index), order.header
        kept = stem.with_suffix(".digests")
        count = int(np.prod(header.grid, dtype=np.int64))
        top = manifest.tensors[order.index].top
        digests = kept.read_bytes() if kept.is_file() else b""
        if not self._leads(digests, count, header, top):
            size = count * DIGEST_BYTES
            path = f"{order.base}/tiles/{order.index}"
            digests = self._ask(order.asked, lambda: self._client.get(path, limit=size), order.name)
            if not self._leads(digests, count, header, top):
                words = f"{_at(order.asked)}: {order.name}: the tile digests are of another tensor"
                raise WithheldError(Withheld(order.asked, "other bytes", words, path=order.name))
            kept.write_bytes(digests)
        return TensorFile(stem, header, leaf.plain.dtype, digests, self._hashes)

    def _leads(self, digests: bytes, count: int, header: TensorHeader, top: bytes) -> bool:
        if len(digests) != count * DIGEST_BYTES:
            return False
        return merge_top(self._hashes, split_digests(digests), header.grid) == top

    def _filled(self, order: _Order, file: TensorFile, done: int, total: int) -> NDArray:
        """Return a tensor's array once each of its tiles is right."""
        size, unsaved = order.header.tile_bytes, 0
        try:
            for tiles in _batches(file.missing(), size):
                data = self._bytes(order, tiles.start * size, tiles.stop * size)
                for place, tile in enumerate(tiles):
                    if not file.put(tile, data[place * size : (place + 1) * size]):
                        self._tile(order, file, tile)
                unsaved += len(tiles) * size
                self._told(_at(order.asked), done + tiles.stop * size, total)
                if unsaved >= _SAVE_BYTES:
                    file.save()
                    unsaved = 0
        finally:
            file.save()
        return file.array

    def _tile(self, order: _Order, file: TensorFile, tile: int) -> None:
        """Ask for a tile that came out wrong again, and name it if it stays so."""
        size = order.header.tile_bytes
        data = b""
        for _ in range(TILE_TRIES):
            data = self._bytes(order, tile * size, (tile + 1) * size)
            if file.put(tile, data):
                return
        place = tile_index(order.header, tile)
        words = f"{_at(order.asked)}: {order.name}: tile {','.join(map(str, place)) or '0'} is not"
        words = f"{words} the committed one"
        digest = file.digest(data).hex()
        raise WithheldError(
            Withheld(order.asked, "other bytes", words, path=order.name, tile=place, digest=digest)
        )

    def _bytes(self, order: _Order, start: int, stop: int) -> bytes:
        """Return what the server sends for a range, however large, in parts."""
        if start == stop:
            return b""
        path = f"{order.base}/data/{order.index}"
        parts: list[bytes] = []
        for at in range(start, stop, CHUNK_BYTES):
            end = min(at + CHUNK_BYTES, stop)
            parts.append(
                self._ask(
                    order.asked,
                    lambda at=at, end=end: self._client.get_range(path, at, end),
                    order.name,
                )
            )
        return b"".join(parts)

    def _ask(self, asked: Asked, question: Callable[[], bytes], name: str = "") -> bytes:
        try:
            return question()
        except (NoAnswerError, RefusedAnswerError) as error:
            answer: Answer = "none" if isinstance(error, NoAnswerError) else "refused"
            words = f"{_at(asked)}: {f'{name}: ' if name else ''}{answer}: {error}"
            raise WithheldError(Withheld(asked, answer, words, path=name)) from error

    def _keep(self, committed: str, folder: Path) -> None:
        """Keep the newest trees for steps that share them; disks are smaller than runs."""
        self._complete[committed] = folder
        self._complete.move_to_end(committed)
        while len(self._complete) > _KEEP_COMPLETE:
            shutil.rmtree(self._complete.popitem(last=False)[1], ignore_errors=True)


def _at(asked: Asked) -> str:
    return f"{asked.part} {asked.step}"


def _batches(tiles: list[int], size: int) -> Iterator[range]:
    """Yield runs of tiles that follow one another, of about CHUNK_BYTES."""
    most = max(1, CHUNK_BYTES // max(1, size))
    at = 0
    while at < len(tiles):
        end = at + 1
        while end < len(tiles) and end - at < most and tiles[end] == tiles[end - 1] + 1:
            end += 1
        yield range(tiles[at], tiles[end - 1] + 1)
        at = end


def _placed(array: NDArray, leaf: Leaf) -> jax.Array:
    """Lay a tensor out as the programs take it; each device reads its own part of the file."""
    # A copy: the file goes away, and jax may keep the memory that it is given.
    value = jax.make_array_from_callback(
        leaf.plain.shape, leaf.shape.sharding, lambda index: np.array(array[index])
    )
    return jax.random.wrap_key_data(value) if is_key(leaf.shape) else value
