"""What commands print, and how progress looks without a terminal."""

import io
import json
import sys

import pytest

from launch import output
from launch.output import (
    Form,
    ProgressLines,
    Tone,
    coloured,
    emit,
    figures_text,
    flat,
    printable,
    progress,
    table,
    toned,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_form_prints_one_object_and_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    emit(Form.JSON, {"b": 1, "a": "ü"}, ["a line"])
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"a": "ü", "b": 1}
    assert shown.count("\n") == 1 and shown.isascii()


def test_text_form_prints_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    emit(Form.TEXT, {"a": 1}, ["one", "two"])
    assert capsys.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize(
    "variables, expected",
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_follows_no_color(
    variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert coloured(Terminal()) is expected
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert ("\x1b[" in toned("word", Tone.GOOD)) is expected


def test_no_colour_where_stdout_is_no_terminal() -> None:
    assert not coloured(io.StringIO())


def test_plain_progress_prints_first_last_and_at_most_one_line_an_interval(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    lines = ProgressLines("train", 100, every_seconds=5.0, clock=lambda: now[0])
    with lines as bar:
        for step in range(1, 101):
            now[0] = step * 0.1
            bar.reached(step, {"loss": 1 / step})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split()[1] for line in shown.err.splitlines()] == ["1/100", "51/100", "100/100"]
    assert shown.err.splitlines()[0] == "train 1/100 loss 1"


def test_progress_is_plain_without_a_terminal() -> None:
    assert isinstance(progress("train", total=1), ProgressLines)


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("train", total=4, done=1) as bar:
        bar.note("a line [not markup]")
        bar.reached(4, {"loss": 0.25})
    assert not isinstance(bar, ProgressLines)
    shown = terminal.getvalue()
    assert "4/4" in shown and "loss 0.25" in shown and "[not markup]" in shown


def test_progress_without_rich_is_plain_even_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "launch.progress_bar", None)
    assert isinstance(progress("train", total=1), ProgressLines)


def test_control_characters_are_not_printed() -> None:
    assert "\x1b" not in printable("a\x1b[31mb")


def test_nested_values_flatten_to_dotted_names() -> None:
    assert flat({"a": {"b": [1, None]}, "c": "x"}) == {"a.b.0": "1", "a.b.1": "none", "c": "x"}


def test_table_aligns_values() -> None:
    assert table([("a", "1"), ("long", "2")]) == ["  a     1", "  long  2"]


def test_figures_have_four_digits() -> None:
    assert figures_text({"loss": 0.123456, "s": 2}) == "loss 0.1235  s 2"


def test_module_has_no_import_of_rich() -> None:
    assert "rich" not in vars(output)
