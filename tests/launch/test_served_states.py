"""States over HTTP: what a server may be asked, and what a client makes of its answers."""

import contextlib
import dataclasses
import http.client
import itertools
import math
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from anh_jax.audit.shown_tree import RunNames
from anh_jax.audit.state_source import Asked, WithheldError
from anh_jax.digest.hashes import level_hash
from anh_jax.digest.host import tree_digest
from anh_jax.digest.served import Place, ServedTree, tile_index
from attest.digest_tree import path_text
from attest.keys import PrivateKey
from attest.served_tree import ShownTree
from launch import state_client, state_download
from launch.errors import CommandError
from launch.state_client import NoAnswerError, StateClient
from launch.state_download import ServedStates
from launch.state_server import StateServer
from launch.state_shelf import Shelf, Waiting, Wish

RUN, ROW, STEP = "a" * 64, "b" * 64, 7
KEY = PrivateKey.generate()
NAMES = RunNames(RUN, KEY.public.hex(), "blake3")
WISH = Wish("state", STEP)
PLACE = Place(RUN, ROW, "state", STEP)


def some_state() -> dict[str, Any]:
    rows = np.arange(128 * 256, dtype=np.float32).reshape(128, 256)
    return {
        "key": jax.random.key(3),
        "parameters": {
            "b": jnp.arange(12, dtype=jnp.bfloat16),
            "empty": jnp.zeros((0, 3), jnp.float32),
            "mask": jnp.arange(40) % 3 == 0,
            "w": jnp.asarray(rows).at[0, 0].set(jnp.nan),
        },
        "step": jnp.uint32(STEP),
    }


STATE = some_state()
ROOT = tree_digest(STATE, step=STEP).root.hex()
ASKED = Asked("state", STEP, ROW, ROOT)


def abstract_state() -> Any:
    sharding = SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), STATE)


class Tree(ServedTree):
    """A tree to serve; `damage` flips a bit of one tile, so many times."""

    def __init__(self, tree: object, place: Place = PLACE, key: Any = KEY) -> None:
        super().__init__(tree, place, alg="blake3")
        claim = self.manifest.claim(level_hash("blake3"))
        self.shown = ShownTree(self.manifest, None if key is None else claim.sign(key)).to_bytes()
        self.tensors = len(self.manifest.tensors)
        self.damage: dict[tuple[int, int], float] = {}
        self.odd_digests = False
        self.reads: list[int] = []
        self.fail_after = math.inf

    def tile_digests(self, index: int) -> bytes:
        data = super().tile_digests(index)
        return data[:-1] + bytes([data[-1] ^ 1]) if self.odd_digests else data

    def read(self, index: int, start: int, stop: int) -> bytes:
        self.reads.append(stop - start)
        if len(self.reads) > self.fail_after:
            raise RuntimeError("the server dies")
        data = bytearray(super().read(index, start, stop))
        size = self.manifest.tensors[index].header.tile_bytes
        for (of, tile), times in self.damage.items():
            at = tile * size - start
            if of == index and times > 0 and 0 <= at < len(data):
                data[at] ^= 1
                self.damage[(of, tile)] = times - 1
        return bytes(data)

    def tiles(self) -> list[tuple[int, int]]:
        """Return every tile that has bytes, as tensor and number."""
        headers = [tensor.header for tensor in self.manifest.tensors]
        return [(i, t) for i, h in enumerate(headers) if h.tile_bytes
                for t in range(math.prod(h.grid))]  # fmt: skip


@pytest.fixture
def tree() -> Tree:
    return Tree(STATE)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_client, "_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(state_client, "TRIES", 2)


@pytest.fixture
def serving() -> Iterator[Any]:
    """Return a function that serves a tree and gives its server."""
    servers: list[StateServer] = []

    def serve(tree: Tree | None, *, token: str | None = None) -> StateServer:
        shelf = Shelf(lambda wish: "" if wish == WISH else "not of this run")
        if tree is not None:
            shelf.put(WISH, tree)
        servers.append(StateServer(0, shelf, token=token, told=lambda words: None))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def fetch(server: StateServer, folder: Path, *, token: str | None = None) -> Any:
    source = ServedStates(StateClient(server.url, token=token), NAMES, folder)
    try:
        return source.state(ASKED, abstract_state())
    finally:
        source.close()


def withheld(server: StateServer, folder: Path) -> Any:
    with pytest.raises(WithheldError) as caught:
        fetch(server, folder)
    return caught.value.withheld


def test_state_arrives_bit_for_bit(tree, serving, tmp_path: Path) -> None:
    assert len(tree.tiles()) > 8
    found = fetch(serving(tree), tmp_path)
    assert tree_digest(found, step=STEP).root.hex() == ROOT
    # What arrived whole is not kept: disks are smaller than runs.
    assert not list(tmp_path.rglob("*.data"))


@pytest.mark.parametrize("times", [1, state_download.TILE_TRIES])
def test_damaged_tiles_are_asked_for_again(tree, serving, tmp_path: Path, times: int) -> None:
    tree.damage = dict.fromkeys(tree.tiles(), times)
    assert tree_digest(fetch(serving(tree), tmp_path), step=STEP).root.hex() == ROOT


def test_every_tile_that_stays_damaged_is_named_and_never_used(tree, serving, tmp_path) -> None:
    server = serving(tree)
    for index, tile in tree.tiles():
        tree.damage = {(index, tile): math.inf}
        header = tree.manifest.tensors[index].header
        found = withheld(server, tmp_path / f"{index}-{tile}")
        assert (found.answer, found.signed) == ("other bytes", None)
        assert (found.path, found.tile) == (path_text(header.path), tile_index(header, tile))
        assert len(found.digest) == 64 and found.words.endswith("is not the committed one")


def test_tile_digests_of_another_tensor_are_not_believed(tree, serving, tmp_path: Path) -> None:
    tree.odd_digests = True
    found = withheld(serving(tree), tmp_path)
    assert found.answer == "other bytes" and "tile digests are of another tensor" in found.words


@pytest.fixture
def halfway(tree, serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateServer:
    """Return a server whose download broke off in the middle of the largest tensor."""
    monkeypatch.setattr(state_download, "CHUNK_BYTES", 1 << 15)
    server = serving(tree)
    tree.fail_after = 5
    assert withheld(server, tmp_path).answer == "none"
    tree.fail_after = math.inf
    tree.reads.clear()
    return server


def test_interrupted_download_goes_on_where_it_was(halfway, tree, tmp_path: Path) -> None:
    size = sum(tree.size(index) for index in range(tree.tensors))
    assert tree_digest(fetch(halfway, tmp_path), step=STEP).root.hex() == ROOT
    assert 0 < sum(tree.reads) < size - (1 << 14)


def test_torn_tile_of_an_interrupted_download_is_asked_for_again(
    halfway, tree, tmp_path: Path
) -> None:
    marks = max(tmp_path.rglob("*.tiles"), key=lambda p: sum(p.read_bytes()))
    data = marks.with_suffix(".data")
    torn = bytearray(data.read_bytes())
    torn[0] ^= 1
    data.write_bytes(bytes(torn))
    assert tree_digest(fetch(halfway, tmp_path), step=STEP).root.hex() == ROOT


def test_other_digest_under_the_run_key_is_kept_with_its_signature(serving, tmp_path) -> None:
    other = Tree({**STATE, "step": jnp.uint32(8)})
    found = withheld(serving(other), tmp_path)
    assert (found.answer, found.digest) == ("other digest", other.root)
    assert found.signed is not None and found.signed.root == other.root


WRONG = {
    "nobody signed": {"key": None},
    "a stranger signed": {"key": PrivateKey.generate()},
    "of another run": {"place": Place("c" * 64, ROW, "state", STEP)},
    "of another row": {"place": Place(RUN, "c" * 64, "state", STEP)},
    "of another step": {"place": Place(RUN, ROW, "state", STEP + 1)},
    "of another part": {"place": Place(RUN, ROW, "gradient", STEP)},
}


@pytest.mark.parametrize("how", WRONG)
def test_other_digest_that_contradicts_nothing_is_no_more_than_withheld(
    how: str, serving, tmp_path: Path
) -> None:
    found = withheld(serving(Tree({**STATE, "step": jnp.uint32(8)}, **WRONG[how])), tmp_path)
    assert (found.answer, found.signed) == ("other digest", None)


def test_tree_of_other_shapes_than_the_contracts_is_not_read(serving, tmp_path: Path) -> None:
    less = Tree({**STATE, "parameters": {"w": STATE["parameters"]["w"]}})
    source = ServedStates(StateClient(serving(less).url), NAMES, tmp_path)
    with (
        contextlib.closing(source),
        pytest.raises(WithheldError, match="parameters/b is not as in the contract"),
    ):
        source.state(dataclasses.replace(ASKED, committed=less.root), abstract_state())


def test_tree_that_is_refused_or_never_made_is_withheld(
    serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(None)
    monkeypatch.setattr(state_client, "PATIENCE_SECONDS", 0.005)
    assert withheld(server, tmp_path).answer == "none"
    server.shelf.refuse(WISH, "the replay does not reproduce it")
    found = withheld(server, tmp_path)
    assert found.answer == "refused" and "does not reproduce it" in found.words


def test_server_that_always_has_other_words_keeps_nobody_for_ever(
    serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(None)
    words = itertools.count()
    monkeypatch.setattr(server.shelf, "find", lambda wish: Waiting(f"soon {next(words)}", 0))
    monkeypatch.setattr(state_client, "LONGEST_SECONDS", 0.05)
    found = withheld(server, tmp_path)
    assert found.answer == "none" and "not made in" in found.words


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "])
def test_answer_that_drips_is_given_up(
    head: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_client, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(state_client, "TRIES", 1)
    over = threading.Event()

    def drip(line: socket.socket) -> None:
        with line, contextlib.suppress(OSError):
            line.sendall(head)
            while not over.wait(0.01):
                line.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                drip(server.accept()[0])

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        client = StateClient(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(NoAnswerError, match="more than 0 s"):
            client.get("/v1/state/1/manifest", limit=1 << 20)
        over.set()
        thread.join(5)
        client.close()


def test_server_that_is_gone_is_told_in_words(serving, tmp_path: Path) -> None:
    server = serving(None)
    server.shutdown()
    server.server_close()
    assert withheld(server, tmp_path).answer == "none"


def test_token_is_needed_where_one_is_set(tree, serving, tmp_path: Path) -> None:
    server = serving(tree, token="secret")
    found = withheld(server, tmp_path)
    assert found.answer == "refused" and "401" in found.words
    assert fetch(server, tmp_path, token="secret")


def get(server: StateServer, path: str, asked: str | None = None) -> tuple[int, bytes]:
    line = http.client.HTTPConnection("localhost", server.server_address[1], timeout=5)
    line.request("GET", path, headers={} if asked is None else {"Range": asked})
    response = line.getresponse()
    found = response.status, response.read()
    line.close()
    return found


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v1/state/7/../../etc/passwd", "/v1/state/7/data/0/..", "/v1/state/007/manifest",
        "/v1/state/-1/manifest", "/v1/states/7/manifest", "/v1/state/7/manifest?x", "//v1/state/7",
        "/v1/state/7/data/99", "/v1/state/%37/manifest", "/v1/state/7/data/", "/etc/passwd",
    ],
)  # fmt: skip
def test_nothing_but_trees_can_be_asked_for(tree, serving, path: str) -> None:
    assert get(serving(tree), path)[0] == 404


@pytest.mark.parametrize(
    "asked",
    [
        f"bytes=0-{10**17}", "bytes=-5", "bytes=5-", "bytes=9-3", "bytes=0-1,4-5", "lines=0-1",
        "bytes=99999999-999999999", f"bytes=0-{'9' * 400}",
    ],
)  # fmt: skip
def test_ranges_outside_a_tensor_are_refused(tree, serving, asked: str) -> None:
    assert get(serving(tree), "/v1/state/7/data/5", asked)[0] == 416


def test_answer_is_never_larger_than_the_limit(
    tree, serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.state_server.MAX_RANGE", 1000)
    server, index = serving(tree), max(range(tree.tensors), key=tree.size)
    assert tree.size(index) > 1000
    path = f"/v1/state/7/data/{index}"
    assert get(server, path)[0] == get(server, path, "bytes=0-1000")[0] == 416
    status, data = get(server, path, "bytes=0-999")
    assert (status, len(data)) == (206, 1000)


def test_port_that_is_taken_is_one_line(serving) -> None:
    taken = serving(None).server_address[1]
    with pytest.raises(CommandError, match=f"--port {taken}: is taken"):
        StateServer(taken, Shelf(lambda wish: ""), token=None, told=lambda words: None)


def test_shelf_keeps_a_few_trees_and_bounds_what_is_asked_for(tree) -> None:
    shelf = Shelf(lambda wish: "", keep=2)
    for step in range(3):
        shelf.put(Wish("state", step), tree)
    assert shelf.find(Wish("state", 2)) is tree
    assert shelf.find(Wish("state", 0)) is not tree  # the oldest goes first
    for step in range(1000):
        shelf.find(Wish("gradient", step))
    assert len(shelf._wishes) <= 64
