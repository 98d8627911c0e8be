"""`anh diff` names what differs between two runs, causes before effects."""

import dataclasses
import json

import pytest

from launch.cli import run
from launch.run_difference import Change, StepApart, changed


def difference(capsys: pytest.CaptureFixture[str], first, second) -> tuple[int, dict]:
    code = run(["diff", str(first.root), str(second.root), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_run_equals_itself(finished, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = difference(capsys, finished, finished)
    assert code == 0 and found["equal"] and found["stepsCompared"] == 12
    assert run(["diff", str(finished.root), str(finished.root)]) == 0
    assert "all 12 that both runs signed are equal" in capsys.readouterr().out


def test_first_differing_step_and_its_cause_are_named(
    finished, maker, capsys: pytest.CaptureFixture[str]
) -> None:
    other = maker("other", changed_from=7)
    code, found = difference(capsys, finished, other)
    assert code == 1
    assert found["firstDifferingStep"] == 7
    assert [change["name"] for change in found["step"]] == ["gradient root", "state root"]
    assert "equal state and batch, different gradient" in found["hint"]
    assert found["config"] == found["contract"] == found["environment"] == []
    assert run(["diff", str(finished.root), str(other.root)]) == 1
    shown = capsys.readouterr().out
    assert "first difference at step 7" in shown and finished.rows[6].gradient_root not in shown


def test_other_seed_is_found_in_contract_config_and_state_zero(
    finished, maker, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = difference(capsys, finished, maker("other", seed=3))
    assert code == 1
    assert {"name": "seed", "first": "0", "second": "3"} in found["contract"]
    assert found["config"] == [{"name": "training.seed", "first": "0", "second": "3"}]
    assert found["firstDifferingStep"] == 0


def test_config_that_only_one_run_has_is_a_difference(
    finished, maker, capsys: pytest.CaptureFixture[str]
) -> None:
    other = maker("other")
    (other.root / "config.yaml").unlink()
    code, found = difference(capsys, finished, other)
    assert code == 1
    assert found["config"] == [{"name": "training.seed", "first": "0", "second": None}]


def test_unfinished_run_is_compared_as_far_as_it_went(
    finished, unfinished, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = difference(capsys, finished, unfinished)
    assert code == 1 and found["stepsCompared"] == 9
    assert found["firstDifferingStep"] is None
    assert [change["name"] for change in found["environment"]] == ["attempt 2"]


@pytest.mark.parametrize(
    "names, words",
    [
        (["batch root", "loss", "gradient root"], "different batches"),
        (["loss", "gradient root"], "different gradient"),
        (["state root"], "different state"),
        (["bound"], "only what the trainer declared"),
    ],
)
def test_hint_names_the_first_cause(names: list[str], words: str) -> None:
    apart = StepApart(3, tuple(Change(name, "a", "b") for name in names))
    assert words in apart.hint
    assert "different states" in dataclasses.replace(apart, step=0).hint


def test_flat_mappings_differ_by_name() -> None:
    assert list(changed({"a": "1", "b": "2"}, {"b": "3", "c": "4"})) == [
        Change("a", "1", None),
        Change("b", "2", "3"),
        Change("c", None, "4"),
    ]
