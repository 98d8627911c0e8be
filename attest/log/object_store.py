"""Tiles and heads in an object store: S3, GCS, Azure and whatever else obstore speaks to.

Only a store that refuses to put where something is (If-None-Match) takes tiles, and only one that
replaces by entity tag (If-Match) takes heads: two writers could otherwise overwrite each other
unnoticed. What a store says it can do is not believed; it is tried.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attest.errors import InputError
from attest.log.head_store import head_moved
from attest.note import MAX_NOTE_BYTES
from attest.tile_files import tile_differs
from attest.tiles import CHECKPOINT_PATH, MAX_BUNDLE_BYTES, TileFile

try:
    import obstore
    from obstore import exceptions
    from obstore.store import MemoryStore, from_url
except ImportError:
    raise InputError(
        "a log in an object store needs obstore: install anh-jax with the extra `objects`"
    ) from None

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PARALLEL = 8
_PROBE = "writers-probe"
# Stores of this process alone, by address: for tests.
_IN_MEMORY: dict[str, MemoryStore] = {}


class Bucket:
    """Hold an object store and the prefix in it that an address names.

    Raises:
        InputError: from every method, if the store cannot be reached or does not allow it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with self.errors():
            self._store = _open(url)

    def read(self, path: str, max_bytes: int) -> bytes:
        """Return one object; InputError if it is missing or larger."""
        return self.read_tagged(path, max_bytes)[0]

    def read_tagged(self, path: str, max_bytes: int) -> tuple[bytes, str]:
        """Return one object and its entity tag."""
        with self.errors(path):
            found = obstore.get(self._store, path)
            if found.meta["size"] > max_bytes:
                raise InputError(f"{self.url}/{path} is larger than {max_bytes} bytes")
            return bytes(found.bytes()), found.meta["e_tag"] or ""

    def has(self, path: str) -> bool:
        """Say whether there is an object."""
        with self.errors(path):
            try:
                obstore.head(self._store, path)
            except FileNotFoundError:
                return False
            return True

    def create(self, path: str, data: bytes) -> bool:
        """Put an object where none is; say whether it was put."""
        with self.errors(path):
            try:
                obstore.put(self._store, path, data, mode="create")
            except exceptions.AlreadyExistsError:
                return False
            return True

    def replace(self, path: str, data: bytes) -> None:
        """Put an object in the place of whatever is there."""
        with self.errors(path):
            obstore.put(self._store, path, data)

    def swap(self, path: str, data: bytes, tag: str) -> bool:
        """Put an object in the place of the one with this entity tag; say whether it was there."""
        with self.errors(path):
            try:
                obstore.put(self._store, path, data, mode={"e_tag": tag})
            except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
                return False
            return True

    def names(self, prefix: str) -> Iterator[str]:
        """List the paths below a prefix."""
        with self.errors(prefix):
            for some in obstore.list(self._store, prefix=prefix):
                yield from (found["path"] for found in some)

    def remove(self, paths: Sequence[str]) -> None:
        """Remove objects."""
        with self.errors():
            obstore.delete(self._store, list(paths))

    @contextmanager
    def errors(self, path: str = "") -> Generator[None]:
        """Turn what the store raises into one line."""
        try:
            yield
        except (exceptions.BaseError, OSError, NotImplementedError, ValueError) as error:
            said = str(error).partition("\n")[0]
            raise InputError(f"object store {self.url}/{path}: {said}") from None


class ObjectTiles:
    """Keep the files of one log under an address such as `s3://bucket/log`.

    Raises:
        InputError: if the store does not put only where nothing is.
    """

    def __init__(self, url: str) -> None:
        self._bucket = Bucket(url)
        self._bucket.create(_PROBE, b"")
        if self._bucket.create(_PROBE, b""):
            raise InputError(
                f"{url}: this object store overwrites what is there (no If-None-Match); two "
                "writers could fork the log unnoticed. Keep its tiles elsewhere"
            )

    def read(self, path: str) -> bytes:
        """Return one file; InputError if it is missing."""
        return self._bucket.read(path, MAX_BUNDLE_BYTES)

    def has(self, path: str) -> bool:
        """Say whether there is a file at a path."""
        return self._bucket.has(path)

    def write(self, files: Sequence[TileFile]) -> None:
        """Write files; a full one makes its partial forerunners disappear.

        Raises:
            RefusedError: (check `tile`) if there is another file at a path already.
        """
        with ThreadPoolExecutor(_PARALLEL, "tiles") as pool:
            list(pool.map(self._write, files))

    def names(self) -> Iterator[str]:
        """List the paths of all tiles and bundles there are."""
        return self._bucket.names("tile")

    def publish(self, note: bytes) -> None:
        """Replace the checkpoint that readers see."""
        self._bucket.replace(CHECKPOINT_PATH, note)

    def _write(self, file: TileFile) -> None:
        if not self._bucket.create(file.path, file.data) and self.read(file.path) != file.data:
            raise tile_differs(file.path)
        if ".p/" not in file.path and (partial := list(self._bucket.names(f"{file.path}.p"))):
            self._bucket.remove(partial)


class ObjectHeads:
    """Hold the newest signed checkpoint of one log as one object, replaced by its entity tag.

    Raises:
        InputError: if the store cannot compare before it replaces.
    """

    def __init__(self, url: str) -> None:
        self._bucket = Bucket(url)
        self._bucket.create(_PROBE, b"")
        try:
            _, tag = self._bucket.read_tagged(_PROBE, 1)
            obeys = self._bucket.swap(_PROBE, b"", tag)
            obeys = obeys and not self._bucket.swap(_PROBE, b"", '"no such tag"')
        except InputError:
            obeys = False
        if not obeys:
            raise InputError(
                f"{url}: this object store does not compare before it replaces (no If-Match); "
                "keep the log's head elsewhere"
            )

    def create(self, note: bytes) -> None:
        """Store a log's first head; InputError if there is one already."""
        if not self._bucket.create("head", note):
            raise InputError(f"{self._bucket.url}/head: there is a signed head already")

    def read(self) -> bytes:
        """Return the signed head."""
        return self._bucket.read("head", MAX_NOTE_BYTES)

    def swap(self, expected: bytes, note: bytes) -> None:
        """Store a new head if the stored one is still `expected`.

        Raises:
            RefusedError: (check `head`) if another writer was faster.
        """
        found, tag = self._bucket.read_tagged("head", MAX_NOTE_BYTES)
        if found != expected or not self._bucket.swap("head", note, tag):
            raise head_moved(f"{self._bucket.url}/head")

    def close(self) -> None:
        """Return: the store's connections end with it."""


def _open(url: str) -> ObjectStore:
    if url.startswith("memory:"):
        return _IN_MEMORY.setdefault(url, MemoryStore())
    return from_url(url)
