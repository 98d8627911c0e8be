"""Which kernels a device gets: none that have not hashed rightly there."""

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from anh_jax.digest import kernel_choice
from anh_jax.digest.block_cut import BlockCut
from anh_jax.digest.in_place_check import find_fault_in_place
from anh_jax.digest.kernel_choice import Build, checked_kernels, find_fault, kernels_for
from anh_jax.digest.kernels import Kernels, xla_kernels
from anh_jax.digest.pallas_gpu import gpu_kernels
from anh_jax.digest.pallas_tpu import tpu_kernels
from anh_jax.errors import AnhError, ConfigError

CPU = jax.devices("cpu")[0]


def uncompilable() -> Kernels:
    """Return the GPU kernels as they are, which no CPU compiles."""
    return gpu_kernels("compiled")


def one_bit_off() -> Kernels:
    """Return kernels that are wrong in one bit of one chunk in thousands."""
    right = xla_kernels()

    def chunks(words: jax.Array, counters: jax.Array, key: jax.Array, flags: int) -> jax.Array:
        return right.chunks(words, counters, key, flags).at[-1, -1].add(jnp.uint32(1 << 31))

    return replace(right, chunks=chunks)


def parents_without_flags() -> Kernels:
    right = xla_kernels()
    return replace(right, parents=lambda words, key, flags: right.parents(words, key, flags & 64))


def one_bit_off_in_place() -> Kernels:
    """Return the GPU kernels, of which the one that reads in place is wrong in int8 alone."""
    right = gpu_kernels("interpreted")

    def tensor_chunks(
        tensors: Sequence[jax.Array], cut: BlockCut, first: jax.Array, key: jax.Array, flags: int
    ) -> jax.Array:
        assert right.tensor_chunks is not None
        values = right.tensor_chunks(tensors, cut, first, key, flags)
        wrong = jnp.uint32(tensors[0].dtype == jnp.int8)
        return values.at[-1, -1].add(wrong << 31)

    return replace(right, tensor_chunks=tensor_chunks)


def on_cpu(monkeypatch: pytest.MonkeyPatch, build: Build) -> None:
    """Let a build stand in for the Pallas kernels of the device that is here."""
    monkeypatch.setattr(kernel_choice, "_PALLAS", {"cpu": build})


@pytest.mark.parametrize("build", [gpu_kernels, tpu_kernels])
def test_right_kernels_are_chosen(monkeypatch: pytest.MonkeyPatch, build) -> None:
    on_cpu(monkeypatch, lambda: build("interpreted"))
    choice = checked_kernels(CPU)
    assert (choice.name, choice.reason) == ("pallas", None)
    assert choice.kernels.lanes == build().lanes
    assert (choice.kernels.tensor_chunks is None) == (build is tpu_kernels)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (one_bit_off, "hashed 1 of 700 messages wrongly"),
        (parents_without_flags, "hashed 700 of 700 messages wrongly"),
        (uncompilable, "failed: ValueError: Only interpret mode is supported on CPU backend."),
    ],
)
def test_wrong_or_failing_kernels_are_left_for_those_of_xla(
    monkeypatch: pytest.MonkeyPatch, build: Build, words: str
) -> None:
    on_cpu(monkeypatch, build)
    choice = checked_kernels(CPU)
    assert choice.name == "xla"
    assert choice.reason == f"Pallas on cpu {words}; XLA hashes, slower"
    assert find_fault(lambda: choice.kernels, CPU) is None


def test_only_what_reads_in_place_is_left_out_where_it_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_cpu(monkeypatch, one_bit_off_in_place)
    choice = checked_kernels(CPU)
    assert choice.name == "pallas"
    assert choice.kernels.tensor_chunks is None
    assert choice.reason == (
        "Pallas on cpu, reading tensors where they lie, hashed 1 of 216 int8 chunks wrongly; "
        "they are copied"
    )
    failing = replace(gpu_kernels("compiled"), chunks=xla_kernels().chunks)
    assert "Only interpret mode is supported" in str(find_fault_in_place(failing, CPU))
    assert find_fault_in_place(xla_kernels(), CPU) is None


def test_a_backend_that_jax_has_dropped_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped() -> Kernels:
        raise ImportError("no module\nnamed triton")

    on_cpu(monkeypatch, dropped)
    choice = checked_kernels(CPU)
    assert choice.reason is not None
    assert "failed: ImportError: no module named triton;" in choice.reason


def test_pallas_that_was_asked_for_and_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu(monkeypatch, one_bit_off)
    with pytest.raises(ConfigError, match="Pallas on cpu hashed 1 of 700 .* choose auto or xla"):
        checked_kernels(CPU, prefer="pallas")


def test_pallas_where_there_is_none_is_an_error() -> None:
    with pytest.raises(ConfigError, match="Pallas has none for cpu, only for gpu, tpu"):
        kernels_for("cpu", prefer="pallas")


def test_a_device_on_which_xla_is_wrong_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "xla_kernels", one_bit_off)
    with pytest.raises(AnhError, match="no digest of this device can be trusted"):
        checked_kernels(CPU)


def test_xla_is_the_choice_of_a_cpu_and_of_who_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked_kernels(CPU).name == "xla"
    on_cpu(monkeypatch, one_bit_off)
    choice = checked_kernels(CPU, prefer="xla")
    assert (choice.name, choice.reason) == ("xla", None)


def test_accelerators_get_pallas_unless_xla_is_asked_for() -> None:
    assert kernels_for("gpu").lanes == gpu_kernels().lanes
    assert kernels_for("tpu").lanes == tpu_kernels().lanes
    assert kernels_for("cpu").lanes == xla_kernels().lanes
    assert kernels_for("tpu", prefer="xla").lanes != tpu_kernels().lanes
