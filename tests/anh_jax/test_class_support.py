"""A class that a backend cannot run is refused by name."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.class_support import check_runnable, runnable_classes
from anh_jax.errors import ConfigError
from attest.numerics_class import CLASSES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["tf32", "bf16x3"])
def test_a_class_that_a_cpu_cannot_run_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        check_runnable(name, "cpu")
    words = str(refusal.value)
    assert words.startswith(f"numerics.class: {name} cannot be run by the cpu backend; run it on a")
    assert "choose one of f32, bf16_f32acc, bf16" in words


def test_every_class_runs_on_a_gpu_and_tf32_alone_not_on_a_tpu() -> None:
    assert set(runnable_classes("gpu")) == set(CLASSES)
    assert set(CLASSES) - set(runnable_classes("tpu")) == {"tf32"}
    with pytest.raises(ConfigError, match="run it on a gpu backend"):
        check_runnable("tf32", "tpu")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="says what CPUs do")
def test_what_cpus_make_of_the_presets_is_as_the_table_says() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(32, 32)), jnp.float32)
    with jax.default_matmul_precision("TF32_TF32_F32"), pytest.raises(ValueError, match="TF32"):
        jax.jit(jnp.matmul)(x, x)
    with jax.default_matmul_precision("BF16_BF16_F32_X3"):
        found = np.asarray(jax.jit(lambda a, b: a @ b)(x, x), np.float64)
    exact = np.asarray(x, np.float64) @ np.asarray(x, np.float64)
    # Three products of bfloat16 would be off by some 2^-17; this is float32.
    assert np.abs(found - exact).max() <= 2.0**-20 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["tf32", "bf16x3"])
def test_anh_train_refuses_the_class_before_anything_is_written(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "launch", "train", str(ROOT / "configs" / "digits.yaml")]
    done = subprocess.run(
        [*command, f"numerics.class={name}", "--run-dir", str(run)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"numerics.class: {name} cannot be run by the cpu backend" in done.stderr
    assert not run.exists()
