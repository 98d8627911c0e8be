"""The command table, the help and what starting costs."""

import importlib
import json
import subprocess
import sys
import time

import click
import pytest

from launch import cli
from launch.cli import SECTIONS, VERBS, group, run

HEAVY = {"jax", "jaxlib", "flax", "numpy", "ray", "web3", "rich", "orbax", "anh_jax", "msgspec"}


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_listed_verb_exists_and_fits_its_line(verb: cli.Verb) -> None:
    command = importlib.import_module(verb.module).command
    assert isinstance(command, click.Command)
    assert command.help
    assert verb.section in SECTIONS
    assert verb.summary.endswith(".") and len(verb.summary) <= 64


def test_verbs_are_listed_once() -> None:
    names = [verb.name for verb in VERBS]
    assert len(names) == len(set(names))


def leaf_commands() -> list[tuple[str, click.Command]]:
    """Return every command that does something, by its words."""
    found: list[tuple[str, click.Command]] = []
    for verb in VERBS:
        command = importlib.import_module(verb.module).command
        if isinstance(command, click.Group):
            found += [(f"{verb.name} {name}", sub) for name, sub in command.commands.items()]
        else:
            found.append((verb.name, command))
    return found


@pytest.mark.parametrize("words, command", leaf_commands(), ids=lambda value: str(value))
def test_every_command_has_json(words: str, command: click.Command) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options


@pytest.mark.parametrize("words, command", leaf_commands(), ids=lambda value: str(value))
def test_every_option_is_described(words: str, command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{words}: {parameter.opts}"


def test_help_shows_only_sections_that_have_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for section in SECTIONS:
        expected = any(verb.section == section for verb in VERBS)
        assert (f"{section.capitalize()}:" in shown) is expected
    for verb in VERBS:
        assert verb.summary.split()[0] in shown


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_help_imports_nothing_heavy() -> None:
    code = "from launch.cli import run\nassert run(['--help']) == 0"
    assert not modules_after(code) & (HEAVY | {"attest", "nacl"})


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_no_command_module_imports_anything_heavy(verb: cli.Verb) -> None:
    assert not modules_after(f"import {verb.module}") & HEAVY


def test_verify_imports_click_attest_and_nacl_alone() -> None:
    found = modules_after("import launch.commands.verify") - set(sys.stdlib_module_names)
    assert {name for name in found if not name.startswith("_")} <= {
        "attest", "cffi", "click", "launch", "nacl", "sitecustomize", "typing_extensions",
    }  # fmt: skip


def test_help_takes_about_two_tenths_of_a_second() -> None:
    # CPU time of the child, not wall time: other work on the machine must not decide.
    import resource

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    costs: list[float] = []
    for _ in range(3):
        start = spent()
        subprocess.run(
            [sys.executable, "-m", "launch", "--help"], check=True, capture_output=True, timeout=60
        )
        costs.append(spent() - start)
    assert min(costs) <= 0.2


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["vrify"]) == 2
    assert "Did you mean 'verify'?" in capsys.readouterr().err


def test_bare_command_prints_its_help_and_could_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    captured = capsys.readouterr()
    assert "Usage: anh" in captured.out + captured.err


def test_version_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("anh ")


def test_reader_that_goes_away_is_no_error() -> None:
    shell = f"{sys.executable} -m launch --help | true"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr and "Error" not in done.stderr


def test_group_does_not_import_a_verb_to_list_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"imported {name}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    context = click.Context(group)
    started = time.monotonic()
    assert group.list_commands(context) == [verb.name for verb in VERBS]
    assert time.monotonic() - started < 1
