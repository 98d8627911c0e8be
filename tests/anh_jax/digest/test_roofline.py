"""Constants and counts that bound a digest's rate on a chip."""

import pytest

from anh_jax.digest import roofline
from anh_jax.digest.roofline import CHIPS, bound, chip_of, ops_per_byte, planned_rate


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5e", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
    ],
)
def test_a_device_kind_names_its_chip(kind: str, name: str) -> None:
    found = chip_of(kind)
    assert found is not None
    assert found.name == name


def test_an_unknown_device_has_no_constants() -> None:
    assert chip_of("cpu") is None
    assert chip_of("NVIDIA GeForce RTX 4090") is None


def test_counts_are_those_of_the_published_algorithms() -> None:
    # 56 quarter rounds of 4 + 4 + 4 instructions and 8 last xors; rotations cost three on a TPU.
    assert roofline.BLAKE3_OPS["gpu"].total == 56 * 12 + 8
    assert roofline.BLAKE3_OPS["tpu"].total == 56 * (6 + 4 + 4 * 3) + 8
    assert ops_per_byte("gpu", "blake3") == 680 / 64 * 17 / 16
    assert 20 < ops_per_byte("gpu", "sha256") < 25 < 50 < ops_per_byte("tpu", "sha256") < 60


@pytest.mark.parametrize("name", sorted(CHIPS))
@pytest.mark.parametrize("alg", ["blake3", "sha256"])
def test_no_plan_is_faster_than_memory_or_arithmetic(name: str, alg: str) -> None:
    chip = CHIPS[name]
    assert planned_rate(chip, alg) < bound(chip, alg) <= chip.hbm_bytes_per_s
    assert bound(chip, alg) * ops_per_byte(chip.platform, alg) <= chip.int32_ops_per_s * (1 + 1e-9)
    assert chip.assumptions
