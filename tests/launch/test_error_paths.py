"""Every command meets every kind of bad input with one line, the right code and no traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.cli import run

# Each command with {bad} where the bad input goes, and {run}, {policy} for good ones.
FILE_COMMANDS = {
    "verify": ["verify", "{bad}", "--policy", "{policy}"],
    "verify policy": ["verify", "{run}/run.proof", "--policy", "{bad}"],
    "verify history": ["verify", "{run}/run.proof", "--policy", "{policy}", "--history", "{bad}"],
    "inspect": ["inspect", "{bad}"],
    "policy show": ["policy", "show", "{bad}"],
    "policy new": ["policy", "new", "{run}/new.toml", "--like", "{bad}"],
    "key show": ["key", "show", "{bad}"],
    "monitor key": ["monitor", "{run}", "--once", "--key", "{bad}", "--operator", "o"],
}
RUN_COMMANDS = {
    "show": ["show", "{bad}", "--step", "1"],
    "diff": ["diff", "{run}", "{bad}"],
    "digest": ["digest", "{bad}", "--step", "1"],
    "open": ["open", "{bad}", "--step", "1", "--tensor", "x", "--tile", "0"],
    "report": ["report", "{bad}"],
    "log fsck": ["log", "fsck", "{bad}"],
    "monitor": ["monitor", "{bad}", "--once"],
}
ALL = FILE_COMMANDS | RUN_COMMANDS


def missing(place: Path) -> None:
    return


def directory(place: Path) -> None:
    place.mkdir()


def empty(place: Path) -> None:
    place.touch()


def corrupt(place: Path) -> None:
    place.write_bytes(b'{"payload": "AAAA", "sign')


def binary(place: Path) -> None:
    place.write_bytes(bytes(range(256)) * 8)


def endless_link(place: Path) -> None:
    # The one unreadable file that stops root as well.
    place.symlink_to(place.name)


def huge_integer(place: Path) -> None:
    place.write_bytes(b'{"version": ' + b"9" * 10_000 + b"}")


def deep(place: Path) -> None:
    place.write_bytes(b"[" * 200_000)


INPUTS: list[Callable[[Path], None]] = [
    missing, directory, empty, corrupt, binary, endless_link, huge_integer, deep,
]  # fmt: skip


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.err.startswith("anh: ") and captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err and "ANH_DEBUG" not in captured.err, captured.err
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("make", INPUTS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("words", ALL.values(), ids=ALL.keys())
def test_bad_input_gives_one_line_and_no_traceback(
    words: list[str],
    make: Callable[[Path], None],
    proven,
    key_home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad"
    make(bad)
    root = str(proven.root)
    values = {"bad": str(bad), "run": root, "policy": f"{root}/policy.toml"}
    code = run([word.format(**values) for word in words])
    line = one_line(capsys)
    # What is not there, or not a file, could not be looked at; what is there and broken fails.
    assert code in ((2,) if make in (missing, directory, endless_link) else (1, 2))
    assert "bad" in line or code == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
@pytest.mark.parametrize("words", FILE_COMMANDS.values(), ids=FILE_COMMANDS.keys())
def test_unreadable_file_could_not_be_looked_at(
    words: list[str], proven, key_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    bad.touch(mode=0)
    root = str(proven.root)
    values = {"bad": str(bad), "run": root, "policy": f"{root}/policy.toml"}
    assert run([word.format(**values) for word in words]) == 2
    assert "ermission denied" in one_line(capsys)


# The files that a command reads inside a run directory, damaged one at a time.
@pytest.mark.parametrize("name", ["contract.json", "statements/genesis.json", "steps/1-0.jsonl"])
@pytest.mark.parametrize("make", [corrupt, empty, deep, endless_link], ids=lambda m: m.__name__)
@pytest.mark.parametrize("verb", ["show", "diff", "digest"])
def test_damaged_part_of_a_run_gives_one_line(
    verb: str,
    make: Callable[[Path], None],
    name: str,
    proven,
    maker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = maker("good")
    path = proven.root / name
    path.unlink()
    make(path)
    values = {"bad": str(proven.root), "run": str(good.root), "policy": ""}
    code = run([word.format(**values) for word in RUN_COMMANDS[verb]])
    if code == 0 or (verb == "diff" and make in (empty, corrupt) and name.startswith("steps")):
        # An empty or torn step file is one that was stopped early, not a damaged one.
        assert name.startswith("steps")
        return
    assert code in (1, 2)
    one_line(capsys)


@pytest.mark.parametrize("words", ALL.values(), ids=ALL.keys())
def test_unknown_flag_names_the_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--polcy"]) == 2
    line = one_line(capsys)
    assert "--polcy" in line and "--help" in line


@pytest.mark.parametrize(
    "words",
    [["verify"], ["show", "d"], ["open", "d"], ["diff", "d"], ["key", "new"],
     ["policy", "show"], ["log", "nothing"], ["show", "d", "--step", "x"],
     ["key", "new", "a", "b"]],
    ids=" ".join,
)  # fmt: skip
def test_missing_or_surplus_argument_names_the_help(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert f"anh {words[0]}" in one_line(capsys)


def test_proof_without_a_policy_names_the_option(
    proven, capsys: pytest.CaptureFixture[str]
) -> None:
    # Refutations need none, so which file it is decides.
    assert run(["verify", str(proven.root / "run.proof")]) == 2
    line = one_line(capsys)
    assert "'--policy'" in line and "anh verify --help" in line
    assert run(["verify", "x"]) == 2
    assert "x: no such file" in one_line(capsys)


def test_wrong_key_of_the_log_is_named(
    proven, maker, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = maker("other")
    for folder in ("keys/log", "keys/witness"):
        (proven.root / folder).unlink()
        (other.root / folder).rename(proven.root / folder)
    assert run(["monitor", str(proven.root), "--once"]) == 2
    assert "is not the key of log" in one_line(capsys)


def test_bug_shows_one_line_and_where_to_look(
    proven, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from launch import step_numbers

    def broken(directory: Path, step: int) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(step_numbers, "read_step", broken)
    assert run(["show", str(proven.root), "--step", "1"]) == 2
    captured = capsys.readouterr().err
    assert captured == "anh: anh show: unexpected RuntimeError: first; ANH_DEBUG=1 shows where\n"


def test_missing_packages_name_the_extra() -> None:
    # A fresh process in which jax cannot be imported, as with the base install.
    script = (
        "import sys\n"
        "sys.modules['jax'] = None\n"
        "from launch import errors\n"
        "try:\n"
        "    import jax\n"
        "except ImportError as error:\n"
        "    sys.exit(errors.report(error, ['train', 'x.yaml']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "anh: anh train needs the training packages: pip install 'anh-jax[train]'\n"
    )


@pytest.mark.parametrize("verb", ["show", "report", "diff", "digest", "verify", "inspect"])
def test_reading_a_run_needs_the_base_install_alone(verb: str, proven, tmp_path: Path) -> None:
    root = str(proven.root)
    words = {
        "show": ["show", root, "--step", "1"],
        "report": ["report", root],
        "diff": ["diff", root, root],
        "digest": ["digest", root, "--step", "1"],
        "verify": ["verify", f"{root}/run.proof", "--policy", f"{root}/policy.toml"],
        "inspect": ["inspect", f"{root}/run.proof"],
    }[verb]
    hidden = ["jax", "jaxlib", "numpy", "flax", "ray", "rich", "msgspec", "ruamel", "blake3"]
    script = (
        f"import sys\nfor name in {hidden}: sys.modules[name] = None\n"
        f"from launch.cli import run\nsys.exit(run({words}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"ANH_HOME": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
