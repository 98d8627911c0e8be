"""Benchmarks' figures count for the machine they were measured on, and for no other."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from anh_jax.digest.forecast import Basis
from anh_jax.digest.roofline import CHIPS
from anh_jax.environment import cpu_model
from launch.bench_figures import RESULTS, chip_figures, host_figures

DIGEST = {"digest": {"figures": {"rate": {"value": 2.5, "unit": "GB/s"}}}}


def document(**changes: Any) -> dict[str, Any]:
    here = {"cpu": cpu_model(), "cores": os.cpu_count(), "date": "2026-11-24T11:53:32+00:00"}
    return {**here, "benches": DIGEST, **changes}


def written(folder: Path, value: Any, name: str = "some.json") -> Path:
    (folder / name).write_text(json.dumps(value))
    return folder


def test_figure_is_measured_and_names_machine_and_command(tmp_path: Path) -> None:
    found = host_figures(written(tmp_path, document()))
    assert found is not None
    figure = found.figure("digest", "rate", scale=1e9)
    assert figure is not None
    assert (figure.value, figure.basis) == (2.5e9, Basis.MEASURED)
    for words in (cpu_model(), "2026-11-24", "python bench/digest.py", "rate"):
        assert words in figure.source


@pytest.mark.parametrize("changes", [{"cpu": "another"}, {"cores": 4096}])
def test_another_machine_s_figures_are_not_this_one_s(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    assert host_figures(written(tmp_path, document(**changes))) is None


def test_chip_s_figures_are_found_by_what_jax_calls_it(tmp_path: Path) -> None:
    written(tmp_path, document(device="NVIDIA H200"), "chip.json")
    written(tmp_path, {"benches": {}}, "another.json")
    found = chip_figures(CHIPS["h200"], tmp_path)
    assert found is not None and found.machine.startswith("NVIDIA H200")
    assert chip_figures(CHIPS["h100"], tmp_path) is None
    assert chip_figures(CHIPS["v5p"], tmp_path) is None


@pytest.mark.parametrize(
    "benches",
    [
        None,
        [],
        {"digest": None},
        {"digest": {"failed": "no memory"}},
        {"digest": {"figures": {"rate": 3}}},
        {"digest": {"figures": {"rate": {"value": "fast"}}}},
        {"digest": {"figures": {"rate": {"value": 0}}}},
    ],
)
def test_bench_that_failed_has_no_figure(benches: Any, tmp_path: Path) -> None:
    found = host_figures(written(tmp_path, document(benches=benches)))
    assert found is not None and found.figure("digest", "rate") is None


def test_files_that_are_no_results_are_passed_over(tmp_path: Path) -> None:
    for name, data in (("a.json", b"{"), ("b.json", b"[1]"), ("c.json", b"\xff"), ("d.txt", b"")):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "e.json").mkdir()
    assert host_figures(tmp_path) is None
    assert host_figures(written(tmp_path, document(), "z.json")) is not None
    assert host_figures(tmp_path / "nowhere") is None


def test_results_of_this_checkout_are_where_they_are_looked_for() -> None:
    assert (RESULTS / "full.json").is_file()
