"""Two processes of four devices each: only digests cross, and both get the root of one process."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from anh_jax.digest.host import tree_digest

PROGRAM = """
import json
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from anh_jax.digest.frozen import FrozenTops
from anh_jax.digest.host import tree_digest
from anh_jax.digest.opening import open_tile
from anh_jax.errors import AnhError

jax.config.update("jax_num_cpu_devices", 4)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
line = Mesh(np.array(jax.devices()), ("x",))
square = Mesh(np.array(jax.devices()).reshape(2, 4), ("d", "f"))
w = np.arange(256 * 1024, dtype=np.float32).reshape(256, 1024)
rows = []


def exchange(local, owned):
    rows.append(len(local))
    digests, held = multihost_utils.process_allgather((local, owned))
    return np.where(held[0][:, None], digests[0], digests[1])


def spread(array, mesh, spec):
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def refusal(action):
    try:
        action()
    except AnhError as error:
        return type(error).__name__ + " " + str(error)


def result(digest):
    return {"root": digest.root.hex(), "notes": digest.notes, "rows": rows.pop() if rows else 0}


answers = {}
tree = {
    "w": spread(w, line, P("x")),
    "v": spread(w, square, P("f", "d")),
    "b": spread(w[0], line, P("x")),
    "step": spread(w[0, 0], line, P()),
}
answers["spread"] = result(tree_digest(tree, step=2, exchange=exchange))
answers["missing"] = refusal(lambda: tree_digest(tree, step=2))
whole = {"w": spread(w, square, P("f"))}
digest = tree_digest(whole, step=2)
answers["held"] = result(digest)
answers["open"] = len(open_tile(whole, digest, path=("w",), index=(3, 3)))
digest = tree_digest({"w": tree["w"]}, step=2, exchange=exchange)
answers["closed"] = refusal(
    lambda: open_tile({"w": tree["w"]}, digest, path=("w",), index=(0, 0))
)
# What one process remembers, another may not: each exchange must take place on both.
frozen = FrozenTops()
rows.clear()
for _ in range(2):
    both = {"spread": tree["w"], "whole": whole["w"]}
    tree_digest(both, step=2, exchange=exchange, frozen=frozen)
answers["frozen"] = [len(frozen), len(rows)]
rows.clear()
odd = spread(np.zeros((50001, 8), np.float32), line, P(None, "x"))
answers["odd"] = refusal(lambda: tree_digest({"odd": odd}, step=2, exchange=exchange))

# Parts 0 and 3 have a replica on each process, 1 and 2 lie on one process alone.
order = np.array(jax.devices())[[0, 4, 1, 2, 5, 6, 3, 7]].reshape(4, 2)
partly = NamedSharding(Mesh(order, ("x", "copy")), P("x"))
same = jax.make_array_from_callback(w.shape, partly, lambda index: w[index])
rows.clear()
answers["partly"] = result(tree_digest({"w": same}, step=2, exchange=exchange))
shards = []
for device, index in partly.addressable_devices_indices_map(w.shape).items():
    shards.append(jax.device_put(w[index] + (device.id == order[3, 1].id), device))
differs = jax.make_array_from_single_device_arrays(w.shape, partly, shards)
answers["differs"] = refusal(lambda: tree_digest({"w": differs}, step=2, exchange=exchange))
multihost_utils.sync_global_devices("done")
print(json.dumps(answers))
"""
W = np.arange(256 * 1024, dtype=np.float32).reshape(256, 1024)


@pytest.fixture(scope="module")
def answers(two_processes: Callable[[str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return two_processes(PROGRAM)


def test_every_process_gets_the_root_of_one_process(answers: list[dict[str, Any]]):
    tree = {"w": W, "v": W, "b": W[0], "step": W[0, 0]}
    expected = tree_digest(tree, step=2).root.hex()
    assert [answer["spread"]["root"] for answer in answers] == [expected] * 2


def test_one_small_exchange_of_subtrees_serves_all_tensors(answers: list[dict[str, Any]]):
    # 8 x 8 tiles each: w in 8 x 1 parts is exchanged as 8 x 4 subtrees, v in 4 x 2 as 4 x 2.
    assert [answer["spread"]["rows"] for answer in answers] == [8 * 4 + 4 * 2] * 2


def test_small_tensor_that_splits_tiles_is_replicated_with_a_note(answers: list[dict[str, Any]]):
    note = "b: its sharding splits tiles over processes; replicated to be hashed"
    assert [answer["spread"]["notes"] for answer in answers] == [[note]] * 2


def test_array_that_each_process_holds_whole_needs_no_exchange(answers: list[dict[str, Any]]):
    expected = tree_digest({"w": W}, step=2).root.hex()
    held = {"root": expected, "notes": [], "rows": 0}
    assert [answer["held"] for answer in answers] == [held] * 2
    assert all(answer["open"] > 16384 for answer in answers)


def test_only_what_takes_no_exchange_is_remembered(answers: list[dict[str, Any]]):
    assert [answer["frozen"] for answer in answers] == [[1, 2]] * 2


def test_what_cannot_be_digested_or_opened_is_refused(answers: list[dict[str, Any]]):
    for answer in answers:
        assert "spread over processes; pass an exchange" in answer["missing"]
        assert "open it where one process holds all" in answer["closed"]
        assert "odd: its sharding splits tiles of the grid (1, 1)" in answer["odd"]


def test_replica_that_differs_stops_a_process_by_name(answers: list[dict[str, Any]]):
    expected = tree_digest({"w": W}, step=2).root.hex()
    assert [answer["partly"]["root"] for answer in answers] == [expected] * 2
    first, second = (answer["differs"] for answer in answers)
    assert first is None
    assert second.startswith("ReplicaError digest: w: this process and another")
