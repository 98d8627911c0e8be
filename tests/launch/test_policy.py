"""Policies: written from options, shown, and checked for what they can reach."""

import json
from pathlib import Path

import pytest

from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, VerifierKey
from attest.level import Level
from attest.policy import load_policy
from attest.trust import KEY_ROLES
from launch.cli import run
from launch.commands import policy as policy_command

HEX = PrivateKey(b"a" * 32).public.hex()


def vkey(name: str, algorithm: int, seed: bytes) -> str:
    return VerifierKey(name, algorithm, PrivateKey(seed * 32).public).to_text()


LOG = vkey("log.example", ALG_ED25519, b"l")
WITNESSES = [vkey(f"w{n}.example", ALG_COSIGNATURE, bytes([n])) for n in (1, 2, 3)]
BASE = ["--log", f"{LOG}=logco", "--author", f"{HEX}=lab"]


def written(tmp_path: Path, *options: str) -> Path:
    path = tmp_path / "mine.toml"
    assert run(["policy", "new", str(path), *options]) == 0
    return path


def test_roles_offered_are_those_a_policy_knows() -> None:
    assert {role.value for role in KEY_ROLES} == set(policy_command._ROLES)  # pyright: ignore[reportPrivateUsage]


def test_policy_from_options_reads_back(tmp_path: Path, key_home: Path) -> None:
    run(["key", "new", "acme"])
    witnesses = [f"--witness={key}=w{n}" for n, key in enumerate(WITNESSES)]
    monitor = PrivateKey(b"m" * 32).public.hex()
    options = ["--auditor", "acme=acme", "--monitor", f"{monitor}=watch", "--level", "sampled"]
    path = written(tmp_path, *BASE, *witnesses, *options, "--property", "accuracy=1")
    policy = load_policy(path)
    assert policy.log.origin == "log.example" and policy.log.operator == "logco"
    assert policy.quorum == 2 and len(policy.witnesses) == 3
    assert policy.require.level is Level.SAMPLED
    assert policy.require.properties[0].name == "accuracy"
    assert {entry.operator for entry in policy.keys} == {"lab", "acme", "watch"}


def test_policy_like_a_runs_adds_a_foreign_auditor(
    finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    like = str(finished.root / "policy.toml")
    path = written(tmp_path, "--like", like, "--auditor", f"{HEX}=acme")
    policy = load_policy(path)
    assert policy.log == load_policy(finished.root / "policy.toml").log
    assert ("acme", HEX) in [(entry.operator, entry.public.hex()) for entry in policy.keys]


@pytest.mark.parametrize(("witness", "level"), [("lab", "logged"), ("w", "witnessed")])
def test_what_a_missing_monitor_costs_agrees_with_what_is_reachable(
    witness: str, level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, *BASE, "--witness", f"{WITNESSES[0]}={witness}", "--level", "logged")
    shown = capsys.readouterr().out
    assert f"reachable  {level} at most" in shown
    assert "omissions are never checked" in shown
    assert ("the level is witnessed at most" in shown) is (level == "witnessed")


def test_existing_policy_is_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, *BASE, "--witness", f"{WITNESSES[0]}=w")
    before = path.read_bytes()
    assert run(["policy", "new", str(path), *BASE, "--witness", f"{WITNESSES[0]}=w"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "options, words",
    [
        ([], "name the log"),
        (["--log", LOG], "KEY=OPERATOR"),
        (["--log", f"{WITNESSES[0]}=x"], "0x01"),
        ([*BASE, "--witness", f"{LOG}=x"], "0x04"),
        ([*BASE, "--witness", f"{WITNESSES[0]}=w", "--quorum", "2"], "quorum"),
        ([*BASE, "--witness", f"{WITNESSES[0]}=w", "--auditor", "nobody=x"], "no key of yours"),
        ([*BASE, "--witness", f"{WITNESSES[0]}=w", "--auditor", f"{'0' * 64}=x"], "public key"),
        ([*BASE, "--witness", f"{WITNESSES[0]}=w", "--auditor", f"{HEX}=x"], "one key, one role"),
        ([*BASE, "--witness", f"{WITNESSES[0]}=w", "--property", "a=x"], "NAME=OPERATORS"),
        ([*BASE, "--witness", f"{WITNESSES[0]}=w", "--level", "sampled"], "at most witnessed"),
        ([*BASE, "--witness", f"{WITNESSES[0]}=w", "--level", "great"], "--level"),
        ([*BASE, "--witness", f"{WITNESSES[0]}=w", "--unmeasured", "f31"], "the classes are f32"),
        (["--like", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_wrong_option_is_named_and_nothing_written(
    options: list[str],
    words: str,
    tmp_path: Path,
    key_home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "mine.toml"
    assert run(["policy", "new", str(path), *options]) == 2
    assert words in capsys.readouterr().err
    assert not path.exists()


def test_show_says_how_far_a_run_can_come(finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "show", str(finished.root / "policy.toml"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["highestLevel"] == "logged"
    assert any("integrity, not honesty" in note for note in shown["notes"])


def test_unmeasured_class_is_allowed_by_name_and_said_to_be(
    finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    own = str(finished.root / "policy.toml")
    assert run(["policy", "new", str(first), "--like", own, "--unmeasured", "tf32"]) == 0
    # Whoever starts from a policy keeps what it says of numerics.
    assert run(["policy", "new", str(second), "--like", str(first)]) == 0
    assert load_policy(second).numerics.unmeasured == ("tf32",)
    capsys.readouterr()
    assert run(["policy", "check", str(second)]) == 0
    words = "bounded audits count where nobody measured the tolerances: tf32"
    assert words in capsys.readouterr().out
    assert run(["policy", "show", own]) == 0
    assert words not in capsys.readouterr().out


def test_check_passes_a_policy_that_can_be_met(
    finished, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["policy", "check", str(finished.root / "policy.toml")]) == 0
    assert "satisfiable" in capsys.readouterr().out


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('level = "logged"', 'level = "sampled"', "at most logged"),
        ("version = 1", "version = 2", "version"),
        ("quorum", "qorum", "qorum"),
        ("[log]", "[log", "not TOML"),
    ],
)
def test_check_fails_a_policy_that_cannot(
    old: str, new: str, words: str, finished, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished.root / "policy.toml"
    path.write_text(path.read_text().replace(old, new))
    assert run(["policy", "check", str(path)]) == 1
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count(str(path)) == 1


def test_check_of_a_missing_policy_could_not_run(tmp_path: Path) -> None:
    assert run(["policy", "check", str(tmp_path / "none.toml")]) == 2
