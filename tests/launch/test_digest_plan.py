"""`anh digest --plan`: what it predicts, how each number is labelled, what it refuses."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from anh_jax.digest.host_rates import HostRates
from anh_jax.digest.roofline import CHIPS, planned_rate
from anh_jax.environment import cpu_model
from attest.digest_tree import TILE_BYTES
from launch import bench_figures, planned_machine
from launch.cli import run
from launch.plan_report import quantity

ROOT = Path(__file__).resolve().parents[2]
LM = str(ROOT / "configs" / "python_docs_lm.yaml")
GPT2 = [
    "model.sequence_length=1024", "data.sequence_length=1024", "model.width=768",
    "model.depth=12", "model.heads=12", "model.mlp_width=3072", "model.vocabulary=50304",
    "training.batch_size=512",
]  # fmt: skip
RATES = HostRates(digest=2e9, small_tensor=5e-6, sha256=1e9, signature=8e-5)


@pytest.fixture(autouse=True)
def no_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Look for benchmarks' results where there are none, and measure nothing."""
    monkeypatch.setattr(bench_figures, "RESULTS", tmp_path)
    monkeypatch.setattr(planned_machine, "measure_host", lambda alg: RATES)
    monkeypatch.setattr(planned_machine, "measure_products", lambda: 5e10)


def planned(capsys: pytest.CaptureFixture[str], *words: str, config: str = LM) -> dict[str, Any]:
    assert run(["digest", "--plan", config, *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(["digest", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def value(plan: dict[str, Any], name: str) -> float:
    return plan["figures"][name]["value"]


def basis(plan: dict[str, Any], name: str) -> str:
    return plan["figures"][name]["basis"]


@pytest.mark.parametrize("config", ["configs/python_docs_lm.yaml", "configs/digits.yaml",
                                    "examples/own_loop.yaml"])  # fmt: skip
@pytest.mark.parametrize("hardware", ["v5p", "cpu"])
def test_every_shipped_configuration_can_be_planned(
    hardware: str, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--chips", "2", "--hardware", hardware)
    plan = planned(capsys, *words, config=str(ROOT / config))
    assert plan["policy"].startswith("every ") and plan["figures"] and plan["whatIf"]
    assert {figure["basis"] for figure in plan["figures"].values()} <= {
        "counted", "measured", "roofline", "assumed",
    }  # fmt: skip


def test_gpt2_on_an_h200_is_predicted_by_an_assumed_share_of_the_roofline(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = planned(capsys, *GPT2, "--chips", "1", "--hardware", "h200")
    rate = planned_rate(CHIPS["h200"], "blake3")
    assert value(plan, "rate") == rate and basis(plan, "rate") == "assumed"
    assert value(plan, "stateDigest") == pytest.approx(value(plan, "stateBytes") / rate)
    assert basis(plan, "peak") == "roofline"
    assert basis(plan, "stateDigest") == "assumed"
    peak = CHIPS["h200"].bf16_flops_per_s
    assert value(plan, "step") == pytest.approx(value(plan, "flops") / (0.4 * peak))
    # A prediction of a step's time rests on an assumed utilisation, and so does every share.
    assert basis(plan, "step") == basis(plan, "shareEveryStep") == "assumed"
    assert plan["policy"] == "every 1" and value(plan, "shareEveryStep") < 0.01


def test_short_steps_get_fewer_state_digests(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*GPT2, "--chips", "1", "--hardware", "h200", "--tokens-per-step", "32768")
    plan = planned(capsys, *words)
    assert basis(plan, "tokens") == "assumed" and value(plan, "tokens") == 32768
    every = int(plan["policy"].removeprefix("every "))
    assert every > 1 and value(plan, "shareEveryStep") > 0.01 > value(plan, "shareRecommended")
    bounded = planned(capsys, *words, "plan.kind=native")
    assert bounded["policy"] == "every 1"


def test_interval_is_one_that_the_configuration_s_checkpoints_allow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (*GPT2, "--chips", "1", "--hardware", "h200", "--tokens-per-step", "32768")
    assert planned(capsys, *words, "checkpoints.every_steps=7")["policy"] == "every 1"


def test_utilisation_shortens_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--chips", "4", "--hardware", "v6e")
    plan = planned(capsys, *words)
    faster = planned(capsys, *words, "--mfu", "0.8")
    assert value(faster, "step") == pytest.approx(value(plan, "step") / 2)


def test_chips_split_the_work_and_exchange_digests(capsys: pytest.CaptureFixture[str]) -> None:
    one, eight = (
        planned(capsys, *GPT2, "--chips", chips, "--hardware", "v5p") for chips in ("1", "8")
    )
    # What is left to an eighth are small tensors, and one of fewer tiles than chips.
    assert value(eight, "stateDigest") == pytest.approx(value(one, "stateDigest") / 8, rel=0.02)
    assert value(one, "gatheredPerStep") == 0 < value(eight, "gatheredPerStep")
    assert value(one, "stateBytes") == value(eight, "stateBytes")


def test_hosts_hash_all_they_hold(capsys: pytest.CaptureFixture[str]) -> None:
    one, eight = (planned(capsys, "--chips", chips, "--hardware", "cpu") for chips in ("1", "8"))
    assert value(eight, "stateDigest") == value(one, "stateDigest")
    assert value(eight, "gatheredPerStep") == 0
    assert value(eight, "step") == pytest.approx(value(one, "step") / 8)
    assert not any("replica" in row["case"] for row in eight["whatIf"])


def test_what_if_tells_the_cost_of_everything_else(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, *GPT2, "--chips", "8", "--hardware", "h100")
    case = {row["case"]: row for row in plan["whatIf"]}
    usual = case["as planned"]["stateSeconds"]
    assert usual == value(plan, "stateDigest")
    assert case["sha256 instead of blake3"]["stateSeconds"] > usual
    assert case["every replica hashes it all"]["stateSeconds"] == pytest.approx(8 * usual, rel=0.02)
    fewer = case["a tenth of the tokens a step"]
    assert fewer["stateSeconds"] == usual and fewer["basis"] == "assumed"
    away = case["device_get, hashlib.sha256 of every leaf"]["stateSeconds"]
    assert away == pytest.approx(value(plan, "stateBytesPerChip") * (1 / 1e9 + 1 / 25e9))


def test_this_host_s_rates_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "--chips", "1", "--hardware", "cpu")
    assert value(plan, "rate") == 2e9 and value(plan, "peak") == 5e10
    assert value(plan, "row") == 8e-5 and value(plan, "perTensor") == 5e-6
    for name in ("rate", "peak", "row", "perTensor", "stateDigest"):
        assert basis(plan, name) == "measured"
    assert "this host" in plan["figures"]["rate"]["source"]


def test_results_of_a_chip_replace_what_is_assumed_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {f"tiles of {TILE_BYTES >> 10} KiB": {"value": 900.0, "unit": "GB/s"}}
    document = {"device": "NVIDIA H200", "benches": {"digest_device": {"figures": figures}}}
    (tmp_path / "h200.json").write_text(json.dumps(document))
    plan = planned(capsys, "--chips", "1", "--hardware", "h200")
    assert value(plan, "rate") == 900e9 and basis(plan, "stateDigest") == "measured"
    for words in (("h100",), ("h200", "attest.alg=sha256")):
        other = planned(capsys, "--chips", "1", "--hardware", *words)
        assert basis(other, "rate") == "assumed"


def test_results_of_a_host_like_this_one_replace_the_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"digest_state_gb_per_cpu_second": 3.0, "small_tensor_us": 4.0}
    figures = {name: {"value": value, "unit": ""} for name, value in names.items()}
    document = {"cpu": cpu_model(), "cores": os.cpu_count(), "benches": {
        "digest": {"figures": figures},
        "signing": {"figures": {"record_us": {"value": 70.0, "unit": ""}}},
    }}  # fmt: skip
    (tmp_path / "host.json").write_text(json.dumps(document))
    plan = planned(capsys, "--chips", "1", "--hardware", "cpu")
    assert (value(plan, "rate"), value(plan, "perTensor")) == (3e9, 4e-6)
    assert value(plan, "row") == 70e-6
    assert "python bench/digest.py" in plan["figures"]["rate"]["source"]
    # What that file does not have is measured on the spot.
    other = planned(capsys, "--chips", "1", "--hardware", "cpu", "attest.alg=sha256")
    assert value(other, "rate") == 2e9


def test_figures_of_the_benchmarks_are_still_called_so() -> None:
    bench = ROOT / "bench"
    text = "".join(path.read_text() for path in bench.glob("*.py"))
    assert 'report.figure("tiles of 16 KiB"' in text and TILE_BYTES == 16 << 10
    assert 'report.figure("small_tensor_us"' in text
    assert 'report.figure(f"{contender.name}_state_gb_per_cpu_second"' in text
    for contender in ("digest", "digest_sha256", "sha256_leaves"):
        assert f'"{contender}"' in text
    measured = json.loads((bench / "results" / "full.json").read_bytes())["benches"]
    assert measured["signing"]["figures"]["record_us"]["unit"].startswith("us")


def test_text_has_a_label_beside_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["digest", "--plan", LM, "--chips", "8", "--hardware", "v5p"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"{LM} on 8 chips (v5p), blake3"
    table = shown[1 : next(i for i, line in enumerate(shown) if line.startswith("what if"))]
    numbers = [line for line in table if line.startswith("  ")]
    assert len(numbers) > 15
    for line in numbers:
        assert any(f" {word}" in line for word in ("counted", "measured", "roofline", "assumed"))
    (advice,) = (line for line in shown if line.startswith("recommended:"))
    assert advice.endswith("assumed") and "attest.digest=" in advice


def test_step_bound_by_its_host_is_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = planned(capsys, "--chips", "8", "--hardware", "v5p")
    large = planned(capsys, *GPT2, "--chips", "8", "--hardware", "v5p")
    assert "bound by its host" in tiny["notes"][-1]
    assert not any("bound by its host" in note for note in large["notes"])


def test_module_beside_its_configuration_is_found_and_leaves_no_path(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import sys

    before = list(sys.path)
    config = str(ROOT / "examples" / "own_loop.yaml")
    plan = planned(capsys, "--chips", "1", "--hardware", "v5e", config=config)
    assert value(plan, "parameters") == 9610 and sys.path == before


PLAN = ["--plan", LM, "--chips", "8", "--hardware", "v5p"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["--plan", LM, "--chips", "6", "--hardware", "v5p"], "--chips 6: arrays are split over "
         "powers of two; use 4 or 8"),
        (["--plan", LM, "--chips", "0", "--hardware", "v5p"], "--chips"),
        (["--plan", LM, "--chips", "8", "--hardware", "v5"], "did you mean v5p?"),
        (["--plan", LM, "--chips", "8", "--hardware", "H200"], "did you mean h200?"),
        (["--plan", LM, "--chips", "8", "--hardware", "abacus"], "use one of b200, h100"),
        (["--plan", LM, "--chips", "8"], "--plan needs --chips N and --hardware H"),
        (["--plan", LM, "--hardware", "v5p"], "--plan needs --chips N and --hardware H"),
        ([*PLAN, "--mfu", "0"], "--mfu"),
        ([*PLAN, "--mfu", "1.5"], "--mfu"),
        ([*PLAN, "--tokens-per-step", "0"], "--tokens-per-step"),
        ([*PLAN, "--step", "3"], "give one of them"),
        ([*PLAN, "model.widht=64"], "did you mean width?"),
        (["--plan", "nowhere.yaml", "--chips", "8", "--hardware", "v5p"], "nowhere.yaml"),
        (["somewhere", "--step", "3", "--chips", "8"], "--chips goes with --plan CONFIG"),
        (["somewhere", "--step", "3", "--mfu", "0.3"], "--mfu goes with --plan CONFIG"),
        (["somewhere"], "D --step N, or --plan CONFIG"),
        (["--step", "3"], "D --step N, or --plan CONFIG"),
        (["one", "two", "--step", "3"], "D --step N, or --plan CONFIG"),
        ([], "D --step N, or --plan CONFIG"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *words)


@pytest.mark.parametrize(
    "number, unit, text",
    [
        (0, "s", "0 s"),
        (1.5e-10, "s", "0.15 ns"),
        (4.05e-7, "s", "405 ns"),
        (0.07084, "s", "70.8 ms"),
        (0.9999, "s", "1 s"),
        (1.25e9, "B", "1.25 GB"),
        (2.26e16, "FLOP", "22.6 PFLOP"),
        (0.0317, "share", "3.17%"),
        (34.27, "share", "34x"),
        (123200, "", "123,200"),
        (0.4, "", "0.4"),
    ],
)
def test_quantities_are_written_for_people(number: float, unit: str, text: str) -> None:
    assert quantity(number, unit) == text
