"""The documents against what they describe: links, commands, flags, configurations, words."""

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import click
import pytest

from anh_jax.experiment import load_experiment
from launch.cli import VERBS, group

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "tests" / "README.md", *(ROOT / "docs").glob("*.md")])
READ = [
    *PAGES,
    ROOT / "CHANGELOG.md",
    *(ROOT / "configs").glob("*.yaml"),
    *(ROOT / "examples").iterdir(),
    *(ROOT / "docs").glob("*.svg"),
]
# Where a machine of ours keeps things; and the places packages come from, which change.
FORBIDDEN = re.compile(r"/work\b|/root\b|/tmp\b|\bshared/|pypi\.org|files\.pythonhosted|127\.0\.0")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
GENERATED = {"write_configuration.py": "configuration.md", "write_modules.py": "architecture.md"}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text("utf-8")) if kind == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


def spans(page: Path) -> list[str]:
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), ROOT / "docs" / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words after `anh` of every command that a page shows, `anh` alone left out."""
    lines = [line for body in blocks(page, "") for line in body.splitlines()]
    shown = [part for line in lines for part in re.split(r"&&|#", line)]
    for text in (*shown, *spans(page)):
        words = text.strip().removeprefix("uv run ").strip()
        # `anh v1 tile` and the like are names of formats.
        if words.startswith("anh ") and not re.search(r"\bv1\b", words):
            yield shlex.split(words)[1:]


def options(command: click.Command) -> set[str]:
    names = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    return {name for name in names if name.startswith("-")} | {"--help", "-h"}


@every_page
def test_every_command_and_flag_that_a_page_shows_exists(page: Path) -> None:
    for words in command_lines(page):
        command: click.Command = group
        context = click.Context(group)
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            if not re.fullmatch(r"[a-z]+", words[0]):
                break  # a stand-in, as in `anh COMMAND`
            found = command.get_command(context, words[0])
            assert found is not None, f"{page.name}: anh {' '.join(words)}"
            command, words = found, words[1:]
        flags = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert flags <= options(command), f"{page.name}: {words}"


def test_the_table_of_commands_lists_each_command_once() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "cli.md"):
        named = re.findall(r"^\| \[?`anh (\w+)`", page.read_text("utf-8"), re.MULTILINE)
        assert sorted(named) == sorted(verb.name for verb in VERBS), page.name


@pytest.mark.parametrize("name", [verb.name for verb in VERBS])
def test_the_section_of_a_command_has_its_flags_and_no_others(name: str) -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    (section,) = re.findall(rf"^## anh {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE)
    written = {flag for row in rows for flag in re.findall(r"`(-[-\w]+)`", row)}
    command = group.get_command(click.Context(group), name)
    assert command is not None
    inner = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    real = {flag for one in inner for flag in options(one)} - {"--help", "-h", "--json"}
    assert written == real
    assert "Exit: " in section


@every_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_readme_leads_to_every_page() -> None:
    linked = set(LINK.findall(prose(ROOT / "README.md")))
    missing = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - linked
    assert not missing


@pytest.mark.parametrize("file", READ, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_speaks_of_the_machine_it_was_written_on(file: Path) -> None:
    found = FORBIDDEN.search(file.read_text("utf-8"))
    assert found is None, found


@every_page
def test_every_configuration_shown_is_one(page: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(page, "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, "utf-8")
        load_experiment(path)


@every_page
def test_every_override_shown_fits_its_configuration(page: Path) -> None:
    for words in command_lines(page):
        if words[:1] == ["train"] and words[1:2] and (ROOT / words[1]).is_file():
            overrides = [word for word in words[2:] if re.match(r"[a-z_.0-9]+=", word)]
            load_experiment(ROOT / words[1], overrides)


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_configuration_is_one(config: Path) -> None:
    load_experiment(config)


@every_page
def test_every_program_shown_is_python(page: Path) -> None:
    for text in blocks(page, "python"):
        ast.parse(text)


@pytest.mark.parametrize("script", GENERATED, ids=str)
def test_a_page_is_what_its_script_writes(script: str) -> None:
    page = ROOT / "docs" / GENERATED[script]
    assert page.read_text("utf-8") == loaded(script).document(), f"run: python docs/{script}"


def test_the_own_loop_of_the_readme_takes_eight_lines() -> None:
    (program,) = blocks(ROOT / "README.md", "python")
    assert len([line for line in program.splitlines() if line.strip()]) == 8


def test_the_picture_loads_nothing_and_has_a_dark_form() -> None:
    text = (ROOT / "docs" / "data_flow.svg").read_text("utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"href|@import|@font-face|src\s*:", text)
    assert text.count("http") == 1  # the name space
