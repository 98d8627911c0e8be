"""Who hashes, and by which kernels: alike on every process of a mesh, and said in words."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

from anh_jax.digest import kernel_choice
from anh_jax.digest.device_frozen import FrozenAside
from anh_jax.digest.digester import Digester, HostDigest
from anh_jax.digest.kernel_choice import KernelChoice
from anh_jax.digest.kernels import xla_kernels
from anh_jax.training.digester_choice import agreed_kernels, choose_digester
from anh_jax.training.mesh import make_mesh

TREE = {"w": np.arange(6, dtype=np.float32)}


@pytest.mark.parametrize("alg", ["blake3", "sha256"])
def test_every_choice_digests_to_the_same_bytes(alg: str) -> None:
    mesh = make_mesh()
    tree = {"w": jax.device_put(TREE["w"])}
    chosen = [choose_digester(setting, mesh, alg=alg) for setting in ("auto", "host", "device")]
    assert all(isinstance(each.digester, Digester) for each in chosen)
    assert [type(each.digester) for each in chosen] == [HostDigest, HostDigest, FrozenAside]
    assert [each.words for each in chosen] == [f"host, {alg}"] * 2 + [f"device, {alg}, cpu"]
    assert len({each.digester.start(tree, step=1).result() for each in chosen}) == 1


class Accelerator:
    """Kernels as `checked_kernels` finds them on this process, and what the other one found."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, own: str, other: str) -> None:
        self.own = own

        def gather(mine: Any) -> Any:
            return np.concatenate([mine, np.array([other == "pallas"])])

        monkeypatch.setattr(kernel_choice, "checked_kernels", self.checked)
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(multihost_utils, "process_allgather", gather)

    def checked(self, device: Any, *, prefer: str = "auto") -> KernelChoice:
        if prefer == "xla":
            return KernelChoice(xla_kernels(), "xla")
        reason = None if self.own == "pallas" else "Pallas on this chip failed"
        return KernelChoice(xla_kernels(), self.own, reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "other", "name", "reason"),
    [
        ("pallas", "pallas", "pallas", None),
        ("pallas", "xla", "xla", "Pallas failed on another process; XLA hashes, slower"),
        ("xla", "pallas", "xla", "Pallas on this chip failed"),
        ("xla", "xla", "xla", "Pallas on this chip failed"),
    ],
)
def test_kernels_that_fail_on_one_process_are_left_by_all(
    own: str, other: str, name: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Accelerator(monkeypatch, own, other)
    choice = agreed_kernels(jax.devices()[0])
    assert (choice.name, choice.reason) == (name, reason)


@pytest.mark.parametrize("others", [True, False])
def test_tensors_are_read_in_place_on_all_processes_or_none(
    others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = replace(xla_kernels(), tensor_chunks=lambda *_: jnp.zeros((0, 8), jnp.uint32))
    answers = iter([True, others])

    def gather(mine: Any) -> Any:
        return np.concatenate([mine, np.array([next(answers)])])

    monkeypatch.setattr(
        kernel_choice, "checked_kernels", lambda device: KernelChoice(kernels, "pallas")
    )
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    choice = agreed_kernels(jax.devices()[0])
    assert choice.name == "pallas"
    assert (choice.kernels.tensor_chunks is not None) == others
    assert (choice.reason is None) == others
