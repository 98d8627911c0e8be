"""Two processes of four devices each: both get the digest of one process, with no host exchange."""

from collections.abc import Callable
from typing import Any

import jax
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

from anh_jax.digest.device import DeviceDigest
from anh_jax.errors import AnhError

jax.config.update("jax_num_cpu_devices", 4)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
line = Mesh(np.array(jax.devices()), ("x",))
square = Mesh(np.array(jax.devices()).reshape(2, 4), ("d", "f"))
w = np.arange(512 * 512, dtype=np.float32).reshape(512, 512)


def spread(array, mesh, spec):
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def refusal(action):
    try:
        action()
    except AnhError as error:
        return type(error).__name__ + " " + str(error)


answers = {}
digester = DeviceDigest()
tree = {
    "w": spread(w, line, P("x")),
    "v": spread(w, square, P("f", "d")),
    "b": spread(w[0], line, P("x")),
    "all": spread(w, line, P()),
    "odd": spread(np.arange(60000, dtype=np.float32).reshape(7500, 8), line, P(None, "x")),
    "here": jax.device_put(w[3]),  # each process holds its own copy, on one device
    "host": np.arange(6, dtype=np.int64),
    "key": jax.random.key(7),
}
digest = digester.start(tree, step=2).result()
answers["root"], answers["notes"] = digest.root.hex(), digest.notes

# Of every array each device holds the same bits, but for one of process 1.
shards = []
for device in line.local_devices:
    copy = w.copy()
    copy[5, 5] += device == line.devices[6]
    shards.append(jax.device_put(copy, device))
differs = jax.make_array_from_single_device_arrays(w.shape, NamedSharding(line, P()), shards)
audit = lambda array: digester.start({"w": array}, step=2, every_replica=True).result()
answers["differs"] = refusal(lambda: audit(differs))
answers["audited"] = audit(tree["all"]).root.hex()
turned = Mesh(np.array(jax.devices()[::-1]), ("x",))
mixed = {"a": tree["w"], "z": spread(w, turned, P("x"))}
answers["mixed"] = refusal(lambda: digester.start(mixed, step=2))
multihost_utils.sync_global_devices("done")
print(json.dumps(answers))
"""
W = np.arange(512 * 512, dtype=np.float32).reshape(512, 512)


@pytest.fixture(scope="module")
def answers(two_processes: Callable[[str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return two_processes(PROGRAM)


def test_every_process_gets_the_root_of_one_process(answers: list[dict[str, Any]]):
    odd = np.arange(60000, dtype=np.float32).reshape(7500, 8)
    tree = {
        "w": W, "v": W, "b": W[0], "all": W, "odd": odd, "here": W[3],
        "host": np.arange(6, dtype=np.int64), "key": jax.random.key(7),
    }  # fmt: skip
    expected = tree_digest(tree, step=2).root.hex()
    assert [answer["root"] for answer in answers] == [expected] * 2


def test_tensors_that_were_moved_are_noted_alike(answers: list[dict[str, Any]]):
    note = "its sharding splits tiles; copied to every device to be hashed"
    assert [answer["notes"] for answer in answers] == [[f"b: {note}", f"odd: {note}"]] * 2


def test_bit_that_differs_on_another_process_is_named_by_both(answers: list[dict[str, Any]]):
    expected = tree_digest({"w": W}, step=2).root.hex()
    assert [answer["audited"] for answer in answers] == [expected] * 2
    first, second = (answer["differs"] for answer in answers)
    assert first == second
    assert first.startswith("ReplicaError digest: w: ")
    assert "hold different bits of the same elements" in first


def test_array_on_the_devices_in_another_order_is_refused(answers: list[dict[str, Any]]):
    for answer in answers:
        assert "z: it lies on other devices, or on the same in another order" in answer["mixed"]
