"""The report: one file, nothing from the network, whatever state the run is in."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from attest.statements import Audit, Counts, Worst
from launch.cli import run
from launch.report.card import render_card
from launch.report.elements import duration
from launch.report.facts import Judgement, read_facts
from launch.report.page import NON_CLAIMS, render, state_of

VOID = {"meta", "br", "line", "circle", "path", "i"}


class Page(HTMLParser):
    """Collect a page's text, its references and its unclosed elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [str(v) for k, v in attrs if k in ("src", "href", "action", "data")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def audit(**changes: object) -> Audit:
    said = Audit(
        final="1" * 64,
        run="2" * 64,
        auditor="acme",
        sample="chosen",
        sources=(),
        k=5,
        steps=6,
        method="bounded",
        results_root="3" * 64,
        counts=Counts(5, 0, 1, 2),
        worst=Worst((0.81).hex(), (1.25).hex(), None, None, "nan", None),
        init="pass",
        export="pass",
        line="pass",
        walk="pass",
        drift="no null known",
        gradient_roots="4" * 64,
        environment={},
    )
    return dataclasses.replace(said, **changes)


def page_of(root: Path) -> Page:
    page = Page((root / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_finished_run_has_plots_verdict_and_non_claims(
    proven, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(proven.root)]) == 0
    assert "finished" in capsys.readouterr().out
    page = page_of(proven.root)
    assert "logged (self): integrity, not honesty" in page.text
    assert proven.run_id in page.text and proven.contract().id in page.text
    assert all(claim in page.text for claim in NON_CLAIMS)
    for title in ("Loss", "Hold-out accuracy", "Seconds a step", "Gradient norm"):
        assert title in page.text
    assert "svg" in page.tags


def test_page_asks_nothing_of_the_network_and_runs_nothing(proven) -> None:
    assert run(["report", str(proven.root)]) == 0
    text = (proven.root / "report.html").read_text()
    page = page_of(proven.root)
    assert page.references == []
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "form"}
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?://", text)


def test_unfinished_run_gets_a_page_with_its_resume(unfinished) -> None:
    assert run(["report", str(unfinished.root)]) == 0
    page = page_of(unfinished.root)
    assert "unfinished: 9 of 12 steps" in page.text
    assert "nothing here has been checked" in page.text
    assert "resumed from step 5" in page.text
    assert "2 rows lie on branches" in page.text


def test_run_that_has_only_a_contract_gets_a_page(finished) -> None:
    for name in ("statements", "steps"):
        for path in (finished.root / name).iterdir():
            path.unlink()
    (finished.root / "metrics.jsonl").unlink()
    assert run(["report", str(finished.root)]) == 0
    page = page_of(finished.root)
    assert "unfinished: 0 of 12 steps" in page.text and "nothing to draw yet" in page.text


@pytest.mark.parametrize(
    "name, words",
    [
        ("run.proof", ""),
        ("metrics.jsonl", "metrics.jsonl"),
        ("steps/1-0.jsonl", "1-0.jsonl"),
        ("statements/genesis.json", ""),
        ("policy.toml", "policy"),
    ],
)
def test_damaged_part_is_named_and_the_rest_is_shown(
    name: str, words: str, proven, capsys: pytest.CaptureFixture[str]
) -> None:
    (proven.root / name).write_bytes(b"{broken\n{broken\n")
    assert run(["report", str(proven.root), "--json"]) == 0
    troubles = json.loads(capsys.readouterr().out)["troubles"]
    page = page_of(proven.root)
    assert proven.contract().id in page.text
    assert troubles and "Could not be read" in page.text
    assert any(words in trouble for trouble in troubles)


def test_refused_proof_is_shown_as_failed(proven) -> None:
    path = proven.root / "run.proof"
    path.write_bytes(path.read_bytes().replace(b'"steps":12', b'"steps":13'))
    facts = read_facts(proven.root)
    assert facts.judgement is not None and facts.judgement.exit_code == 1
    assert state_of(facts).tone == "bad"
    assert "refused" in render(facts)


def test_audit_statistics_are_drawn_against_their_limit(proven) -> None:
    facts = dataclasses.replace(read_facts(proven.root), audits=(audit(),))
    page = Page(render(facts))
    assert "5 passed, 0 refuted, 1 unattestable, 2 withheld" in page.text
    assert "not computed" in page.text and "0.81" in page.text and "1.25" in page.text
    refuted = dataclasses.replace(facts, audits=(audit(counts=Counts(5, 1, 0, 0)),))
    assert 'class="chip bad"' in render(refuted)


def test_text_from_the_run_is_escaped(proven, tmp_path: Path) -> None:
    hostile = tmp_path / "<script>alert(1)<"
    proven.root.rename(hostile)
    assert run(["report", str(hostile)]) == 0
    assert "<script>" not in (hostile / "report.html").read_text()
    assert "script" not in page_of(hostile).tags


def test_card_is_markdown_that_can_be_pasted(proven, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(proven.root), "--card"]) == 0
    card = capsys.readouterr().out
    assert "logged (self): integrity, not honesty" in card
    assert proven.run_id in card and "model.safetensors" in card
    assert all(f"- {claim}" in card for claim in NON_CLAIMS)
    assert not (proven.root / "report.html").exists()


def test_card_keeps_text_from_files_inside_its_code_spans(proven) -> None:
    facts = read_facts(proven.root)
    hostile = dataclasses.replace(
        facts,
        audits=(audit(auditor="a` | **x** |"),),
        judgement=Judgement(("``` # heading",), 0, 1.0),
    )
    card = render_card(hostile)
    assert card.count("```") == 2
    assert "a' / **x** /" in card


def test_page_is_written_anew(proven) -> None:
    assert run(["report", str(proven.root)]) == 0
    before = (proven.root / "report.html").read_bytes()
    assert run(["report", str(proven.root)]) == 0
    after = (proven.root / "report.html").read_bytes()
    assert len(before) == pytest.approx(len(after), abs=4)
    assert not list(proven.root.glob(".report*"))


@pytest.mark.parametrize(
    "seconds, text",
    [(0.0012, "1.2 ms"), (1.5, "1.5 s"), (900.0, "15 min"), (float("nan"), "-")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
