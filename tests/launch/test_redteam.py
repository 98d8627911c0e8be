"""`anh redteam` end to end, and attacks on records against real logs and the light client."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anh_jax.preparation import prepare
from anh_jax.redteam.attack import Attack
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.table import Line, line_of
from anh_jax.redteam.victims import DIGITS, victim
from launch.cli import run
from launch.redteam import contracts, records, report, sampling
from launch.redteam.place import Reading, RecordPlace
from launch.redteam.suite import RECORD_ATTACKS, Result, names

# Eight runs, and what has a test of its own below.
_SLOW = {"seed-grinding", "sample-grinding", "unsampled-cheat", "loosened-contract"}
_QUICK = [a for a in RECORD_ATTACKS if a.name not in _SLOW]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> RecordPlace:
    """Return closed runs of eight steps, with logs, to attack."""
    folder = tmp_path_factory.mktemp("records")
    (folder / "digits.yaml").write_text(DIGITS)
    changes = ("training.steps=8",)
    bench = RedTeamBench(prepare(victim(folder / "digits.yaml", changes)), folder)
    return RecordPlace(bench, folder / "records")


def test_honest_run_is_accepted_by_the_reader_of_these_tests(place: RecordPlace) -> None:
    done = place.honest()
    place.audit(done)
    place.watch(done)
    reading = place.read(done, place.prove(done))
    assert reading.accepted and reading.text.startswith("sampled by acme")


@pytest.mark.parametrize("attack", _QUICK, ids=lambda attack: attack.name)
def test_record_attack_meets_what_is_expected(
    attack: Attack[RecordPlace], place: RecordPlace
) -> None:
    line = line_of(attack, attack.carry_out(place, rounds=1), attack.expected_at(place))
    assert line.n > 0 and line.met, line.words


@pytest.mark.parametrize(
    "attack",
    [records.RefutedRun(), records.OmittedReceipt(), contracts.LoosenedContract()],
    ids=lambda attack: attack.name,
)
def test_reader_who_accepts_everything_makes_the_table_fail(
    attack: Attack[RecordPlace], place: RecordPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reading, "accepted", property(lambda self: True))
    line = line_of(attack, attack.carry_out(place, rounds=1), attack.expected_at(place))
    assert (line.detected, line.met) == (0, False)


@pytest.mark.parametrize(
    "attack", [sampling.SampleGrinding(), sampling.UnsampledCheat()], ids=lambda attack: attack.name
)
def test_bad_step_is_refuted_where_the_auditor_s_nonce_draws_it(
    attack: Attack[RecordPlace], place: RecordPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(attack), "draws", 3)
    outcome = attack.carry_out(place, rounds=1)
    assert len(outcome.trials) == 3
    for trial in outcome.trials:
        drawn = trial.words.startswith("drawn: ")
        assert trial.detected == drawn == (trial.margin is not None), trial.words
    chance = outcome.damage["escapes by chance"]
    assert outcome.damage["escapes of 256 imagined draws"] == pytest.approx(chance, abs=0.1)


def test_free_bytes_change_the_sample_only_through_the_final_record(place: RecordPlace) -> None:
    run = place.copied(place.bench.honest())
    found = sampling.SampleGrinding().closed(run, 5, place.bench.steps)
    assert found["samples by 64 metrics"] > 10 and found["samples by 9 signatures"] == 1


def test_loose_contract_lets_cheated_steps_pass_the_audit_and_not_the_reader(
    place: RecordPlace,
) -> None:
    (trial,) = contracts.LoosenedContract().carry_out(place, rounds=1).trials
    assert trial.detected and "audited steps pass; witnessed" in trial.words
    assert trial.words.split()[0] == trial.words.split()[2]


def test_command_attacks_reports_and_keeps(
    tmp_path: Path, ask: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    (tmp_path / "digits.yaml").write_text(DIGITS.replace("steps: 24", "steps: 6"))
    out = tmp_path / "out"
    code, found = ask("redteam", tmp_path / "digits.yaml", "--attack", "wrong-batch", "--out", out)
    (line,) = found["attacks"]
    assert (code, line["name"], line["expected"]) == (0, "wrong-batch", "detected")
    assert line["detected"] == line["n"] == 3
    assert found["honest"] is None
    assert json.loads((out / "redteam.json").read_text()) == found
    page = (out / "redteam.html").read_text()
    assert "wrong-batch" in page and "<svg" in page


def test_list_names_every_attack(ask: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    code, found = ask("redteam", "--list")
    assert code == 0
    assert [line["name"] for line in found["attacks"]] == list(names())[:-1]


def test_unknown_attack_is_refused(ask: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    code, answer = ask("redteam", "--attack", "prayer")
    assert code == 2 and "no such attack" in answer["error"]


def test_missed_attack_is_coloured_and_bars_keep_their_order() -> None:
    lines = tuple(
        Line(name, "f", "w", "detected", 1, detected, margin, {}, "")
        for name, detected, margin in (("low", 0, 0.5), ("high", 1, 1e4), ("far", 1, float("inf")))
    )
    svg = report.margins(Result(lines, {}, None))
    assert svg.count("<rect") == 3 and svg.count("var(--bad)") == 1
    assert report.place(0.5) < report.place(1.0) < report.place(1e4) < report.place(float("inf"))


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Return a function that runs a command and gives its exit code and JSON answer."""

    def asked(*words: Any) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = run([*map(str, words), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return asked
