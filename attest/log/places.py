"""Where a log keeps its entries, its files and its signed head, if not all in its directory."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

from attest import canonical
from attest.durable_file import read_file, replace_file
from attest.errors import FormatError, InputError
from attest.log.head_store import Heads, HeadStore
from attest.log.layout import Layout
from attest.log.sqlite_store import SqliteStore
from attest.log.store import Store
from attest.tile_files import TileDirectory, Tiles
from attest.tiles import CHECKPOINT_PATH

_MAX_BYTES = 4096
_POSTGRES = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class Places:
    """Name the places by address, each empty for the one in the log's directory.

    `store`: `postgresql://...`; `tiles`: an object store's; `heads`: either kind. A head that is
    kept with the entries would be restored with them, so `heads` must not be the store's address.

    Raises:
        InputError: for an address that no log is kept at, or that holds a password.
    """

    store: str = ""
    tiles: str = ""
    heads: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            address = str(getattr(self, field.name))
            if address and not urlsplit(address).scheme:
                raise InputError(
                    f"{field.name} {address!r}: is no address, such as s3://bucket/log"
                )
            if urlsplit(address).password:
                raise InputError(
                    f"{field.name}: its address holds a password, which would lie beside the log; "
                    "put it into the password file or the environment"
                )
        if self.store and not _in_postgres(self.store):
            raise InputError(f"store {self.store}: only postgresql:// addresses hold entries")
        if _in_postgres(self.tiles):
            raise InputError(f"tiles {self.tiles}: a database does not serve files")
        if self.store and self.heads == self.store:
            raise InputError(
                "the signed head may not lie with the entries: restored together they would hide "
                "what is missing"
            )

    def create(self, layout: Layout, head: bytes) -> None:
        """Make an empty store, tiles and the first head, and write down where they are.

        Raises:
            InputError: if there is a log at one of the places, or it cannot be written.
        """
        if self.open_tiles(layout).has(CHECKPOINT_PATH):
            raise InputError(f"{self.tiles}: there are a log's files already")
        _create_store(self.store, layout).close()
        with closing(self.open_heads(layout)) as heads:
            heads.create(head)
        named = {f.name: str(getattr(self, f.name)) for f in fields(self)}
        if any(named.values()):
            value: canonical.JSON = {name: address for name, address in named.items() if address}
            replace_file(layout.places, canonical.encode(value))

    @classmethod
    def read(cls, layout: Layout) -> Places:
        """Read where a log's parts are; all in its directory if nothing else is written down.

        Raises:
            FormatError: if the file is damaged.
        """
        if not layout.places.exists():
            return cls()
        data = read_file(layout.places, _MAX_BYTES)
        value = canonical.decode(data, max_bytes=_MAX_BYTES)
        known = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or not value.keys() <= known:
            raise FormatError(f"{layout.places}: does not name a log's places", code="fields")
        return cls(**{name: str(address) for name, address in value.items()})

    def open_store(self, layout: Layout) -> Store:
        """Open the store of entries."""
        if not self.store:
            return SqliteStore(layout.store)
        from attest.log.postgres_store import PostgresStore

        return PostgresStore(self.store)

    def open_tiles(self, layout: Layout) -> Tiles:
        """Open the place of tiles and of the published checkpoint."""
        if not self.tiles:
            return TileDirectory(layout.root)
        from attest.log.object_store import ObjectTiles

        return ObjectTiles(self.tiles)

    def open_heads(self, layout: Layout) -> Heads:
        """Open the place of the signed head."""
        if not self.heads:
            return HeadStore(layout.head)
        if _in_postgres(self.heads):
            from attest.log.postgres_store import PostgresHeads

            return PostgresHeads(self.heads)
        from attest.log.object_store import ObjectHeads

        return ObjectHeads(self.heads)


def _create_store(address: str, layout: Layout) -> Store:
    if not address:
        return SqliteStore.create(layout.store)
    from attest.log.postgres_store import PostgresStore

    return PostgresStore.create(address)


def _in_postgres(address: str) -> bool:
    return urlsplit(address).scheme in _POSTGRES
