"""What a command raises becomes one line and an exit code."""

import errno
import json

import click
import pytest

from anh_jax.errors import AnhError, RefutedError
from attest.errors import EquivocationError, FormatError, InputError, RefusedError
from launch import errors
from launch.errors import CheckFailed, CommandError, ExitCode, describe, one_line, report


def missing(package: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {package!r}", name=package)


@pytest.mark.parametrize(
    "error, code, words",
    [
        (CheckFailed("a: does not hold"), 1, "a: does not hold"),
        (CommandError("a: cannot run"), 2, "a: cannot run"),
        (FormatError("bad bytes"), 1, "bad bytes"),
        (RefusedError("no", check="final"), 1, "no"),
        (EquivocationError("two histories"), 3, "two histories"),
        (InputError("no disk"), 2, "no disk"),
        (AnhError("no run"), 2, "no run"),
        (RefutedError("step 3"), 1, "step 3"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 2, "x: no such file"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "d"), 2, "d: is a directory"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "x: permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 2, "x: No space left on device"),
        (OSError("odd"), 2, "odd"),
        (click.UsageError("No such option '--x'."), 2, "No such option '--x'. See 'anh verify"),
        (click.Abort(), 130, "stopped"),
        (KeyboardInterrupt(), 130, "stopped"),
        (missing("jax"), 2, "anh verify needs the training packages: pip install 'anh-jax[train]'"),
        (missing("ruamel.yaml"), 2, "pip install 'anh-jax[train]'"),
        (missing("web3"), 2, "pip install 'anh-jax[chain]'"),
        (missing("starlette"), 2, "pip install 'anh-jax[service]'"),
        (missing("nonsense"), 2, "cannot import nonsense"),
        (ImportError("cannot import name 'x'", name="jax"), 2, "cannot import jax: cannot import"),
        (KeyError("k"), 2, "unexpected KeyError: 'k'; ANH_DEBUG=1"),
        (ZeroDivisionError(), 2, "unexpected ZeroDivisionError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_error_becomes_its_line_and_code(error: BaseException, code: int, words: str) -> None:
    message, found = describe(error, ["verify", "--json"])
    assert found == code
    assert words in message


def test_report_prints_one_line_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(CommandError("first\nsecond"), ["key"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "anh: first second\n"
    assert captured.out == ""


def test_report_under_json_leaves_one_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(CheckFailed("no"), ["verify", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"error": "no", "exitCode": 1}
    assert captured.err == "anh: no\n"


def test_traceback_only_when_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for value, shown in (("", False), ("0", False), ("1", True)):
        monkeypatch.setenv("ANH_DEBUG", value)
        try:
            raise KeyError("x")
        except KeyError as error:
            errors.report(error, ["key"])
        assert ("Traceback" in capsys.readouterr().err) is shown


def test_file_names_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in one_line("bad \x1b[2J name\r\n")


def test_exit_codes_are_the_documented_ones() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 130]
