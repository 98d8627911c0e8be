"""A second, slow digest written from the documented bytes alone, and the trees to compare on."""

import hashlib
import itertools
import json
import math
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from blake3 import blake3

if jax.config.jax_num_cpu_devices < 8:
    jax.config.update("jax_num_cpu_devices", 8)

# The table of the document: bytes of one element.
WIDTHS = {
    **dict.fromkeys(("bool", "int4", "uint4", "int8", "uint8"), 1),
    **dict.fromkeys(("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn"), 1),
    **dict.fromkeys(("float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"), 1),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("int32", "uint32", "float32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 8),
    "complex128": 16,
}
TAGS = {"tile": 16, "node": 17, "tensor": 18, "set": 19, "state": 20, "structure": 21}


def u(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


class SlowDigest:
    """Recompute a digest top down, one block and one element at a time."""

    def __init__(self, alg: str) -> None:
        self.alg = alg

    def h(self, level: str, *material: bytes) -> bytes:
        data = b"".join(material)
        if self.alg == "sha256":
            return hashlib.sha256(bytes([TAGS[level]]) + data).digest()
        return blake3(data, derive_key_context=f"anh v1 {level}").digest()

    def state(self, tree: Any, step: int) -> bytes:
        tensors: list[tuple[bytes, bytes]] = []
        nodes: list[tuple[bytes, bytes]] = []
        self.visit(tree, [], tensors, nodes)
        roots = [root for _, root in sorted(tensors)]
        listed = [path + kind for path, kind in sorted(nodes)]
        structure = self.h("structure", u(len(listed), 4), *listed)
        return self.h("state", u(step, 8), u(len(roots), 4), structure, self.set(roots))

    def visit(self, node: Any, keys: list, tensors: list, nodes: list) -> None:
        path = u(len(keys), 2) + b"".join(keys)
        if node is None:
            nodes.append((path, b"\x02"))
        elif isinstance(node, dict):
            nodes.append((path, b"\x00"))
            for key, child in node.items():
                entry = self.text(key) if isinstance(key, str) else self.index(key)
                self.visit(child, [*keys, entry], tensors, nodes)
        elif isinstance(node, list | tuple):
            nodes.append((path, b"\x01"))
            for index, child in enumerate(node):
                self.visit(child, [*keys, self.index(index)], tensors, nodes)
        else:
            nodes.append((path, b"\x03"))
            tensors.append((path, self.tensor(path, node)))

    def text(self, key: str) -> bytes:
        data = key.encode("utf-8")
        return b"\x00" + u(len(data), 4) + data

    def index(self, index: int) -> bytes:
        return b"\x01" + u(8, 4) + u(index, 8)

    def tensor(self, path: bytes, value: Any) -> bytes:
        kind, name = 0, b""
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            spelled = str(jax.random.key_impl(value)).encode()
            kind, name = 1, u(len(spelled), 1) + spelled
            value = jax.random.key_data(value)
        array = np.asarray(value)
        grid, root = self.blocks(array)
        dtype = array.dtype.name.encode()
        dims = b"".join(u(n, 8) for n in (*array.shape, *grid))
        header = b"\x01" + u(kind, 1) + path + u(len(dtype), 1) + dtype + name
        header += u(array.ndim, 1) + dims
        return self.h("tensor", u(len(header), 4), header, root)

    def blocks(self, array: np.ndarray) -> tuple[list[int], bytes]:
        shape, halved = list(array.shape), [0] * array.ndim
        # A half of at least 16 KiB may be made; rows of at least 512 bytes, or 128 if need be.
        while math.prod(shape) * array.dtype.itemsize / 2 >= 16384:
            even = [axis for axis in range(array.ndim) if shape[axis] % 2 == 0]
            rows = [
                axis == 0 or axis < array.ndim - 1 or shape[axis] // 2 * array.dtype.itemsize >= 512
                for axis in even
            ]
            best = None
            for axis in (axis for axis, long in zip(even, rows, strict=True) if long):
                if best is None or halved[axis] < halved[best]:
                    best = axis
            if best is None and even and shape[even[-1]] // 2 * array.dtype.itemsize >= 128:
                best = even[-1]
            if best is None:
                break
            shape[best] //= 2
            halved[best] += 1
        return [2**n for n in halved], self.block(array, halved, [0] * array.ndim)

    def block(self, array: np.ndarray, left: list[int], cut: list[int]) -> bytes:
        """Hash a block: cut in halves, again along the axis cut least so far, the leading first."""
        if not any(left):
            return self.h("tile", self.elements(array))
        axis = min((a for a in range(len(left)) if left[a]), key=lambda a: (cut[a], a))
        left, cut = list(left), list(cut)
        left[axis] -= 1
        cut[axis] += 1
        low, high = np.split(array, 2, axis=axis)
        return self.h("node", self.block(low, left, cut), self.block(high, left, cut))

    def elements(self, array: np.ndarray) -> bytes:
        if array.dtype.name in ("bool", "int4", "uint4"):
            places = itertools.product(*map(range, array.shape))
            return bytes(int(array[place]) & 15 for place in places)
        return array.tobytes()

    def set(self, roots: list[bytes]) -> bytes:
        if len(roots) == 1:
            return roots[0]
        k = 1
        while k * 2 < len(roots):
            k *= 2
        return self.h("set", self.set(roots[:k]), self.set(roots[k:]))


@pytest.fixture(scope="session")
def slow_digest() -> Callable[..., bytes]:
    def digest(tree: Any, *, step: int, alg: str = "blake3") -> bytes:
        return SlowDigest(alg).state(tree, step)

    return digest


def _bits(shape: tuple[int, ...], width: int, factor: int) -> np.ndarray:
    """Fill with the low bytes of a fixed integer sequence: NaNs and denormals are among them."""
    words = np.arange(math.prod(shape), dtype=np.uint64) * np.uint64(factor)
    return words.astype(f"u{width}").reshape(shape)


def _narrowed(bits: np.ndarray, dtype: str) -> np.ndarray:
    """View bits as a dtype, in the bytes that it can hold."""
    if dtype == "bool":
        return bits % 2 == 0
    if dtype in ("int4", "uint4"):
        bits = bits & 15
    return bits.view(getattr(ml_dtypes, dtype, dtype))


@pytest.fixture(scope="session")
def golden_state() -> dict[str, Any]:
    """Return a state of every dtype, rank and kind of node; integer formulas fix its bits."""
    return {
        "keys": {
            "one": jax.random.key(42, impl="threefry2x32"),
            "rows": jax.random.wrap_key_data(_bits((3, 2), 4, 40503), impl="threefry2x32"),
            "rbg": jax.random.wrap_key_data(_bits((4,), 4, 40503), impl="rbg"),
        },
        "step": np.uint32(7),
        "parameters": {
            "w": _bits((96, 384), 4, 2654435761).view(np.float32),  # grid (4, 2)
            "b": _bits((32768,), 2, 40503).view(ml_dtypes.bfloat16),
            "odd": _bits((97, 211), 2, 40503).view(np.float16),
            "tall": _bits((257, 192), 4, 2654435761).view(np.float32),  # rows below 512 bytes
            "stack": _bits((2, 6, 64, 96), 2, 40503).view(ml_dtypes.bfloat16),
        },
        "bits": {
            # Two zeros, then NaNs: quiet, with a payload, signalling, negative; then a denormal.
            "float32": np.array(
                [0, 1 << 31, 0x7FC00000, 0x7FC00001, 0x7F800001, 0xFFC00000, 1], np.uint32
            ).view(np.float32),
            "bfloat16": np.array([0, 1 << 15, 0x7FC0, 0x7FC1, 0x7F81, 0xFFC0, 1], np.uint16).view(
                ml_dtypes.bfloat16
            ),
        },
        "ranks": [_bits((2, 1, 3, 1, 2)[:rank], 4, 2654435761) for rank in range(6)],
        "types": {
            name: _narrowed(_bits((33,), width, 11400714819323198485), name)
            for name, width in WIDTHS.items()
            if not name.startswith("complex")
        },
        "optimizer": {
            "count": np.int32(-7),
            "wide": _bits((80, 80), 8, 11400714819323198485).view(np.complex64),
            "wider": _bits((3, 2), 8, 11400714819323198485).view(np.complex128),
            "empty": [np.zeros((0, 3), np.float32), np.zeros((4, 0), np.int8)],
            "none": None,
            "nothing": {},
            "list": [np.uint8(1), {5: np.uint8(2)}, []],
        },
    }


@pytest.fixture(scope="session")
def two_processes() -> Callable[[str], list[dict[str, Any]]]:
    """Return what runs a program as ranks 0 and 1 and gives the JSON object that each prints.

    The program finds the coordinator's address and its rank in sys.argv.
    """

    def run(program: str) -> list[dict[str, Any]]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, address, str(rank)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            outputs = [process.communicate(timeout=200) for process in processes]
        finally:
            for process in processes:
                process.kill()
        for process, (_, errors) in zip(processes, outputs, strict=True):
            assert process.returncode == 0, errors
        # The collectives' library prints too.
        lines = [output.splitlines() for output, _ in outputs]
        return [json.loads(next(line for line in each if line.startswith("{"))) for each in lines]

    return run
