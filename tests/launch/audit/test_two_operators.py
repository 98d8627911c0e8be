"""Two operators announce, reveal and audit one run: one bit for bit, one within bounds."""

import json
from pathlib import Path

import pytest

from attest.policy import load_policy
from attest.statements import Audit
from launch.cli import run

AUDITORS = {"alice": "acme", "bob": "globex"}


def test_run_is_sampled_by_two_operators_by_either_method(
    going: Path, ask, logged, make_keys, naming, capsys: pytest.CaptureFixture[str]
) -> None:
    make_keys(*AUDITORS, "watch")
    for name, operator in AUDITORS.items():
        assert ask("audit", going, "--intend", "--key", name, "--operator", operator)[0] == 0
    assert run(["resume", str(going)]) == 0
    named = [word for n, o in AUDITORS.items() for word in ("--auditor", f"{n}={o}")]
    mine = naming(going, *named, "--monitor", "watch=eye.example", "--level", "sampled")
    keys = [entry.public.hex() for entry in load_policy(mine).keys if entry.role.value == "auditor"]
    mine.write_text(mine.read_text() + f"\n[sample]\nsources = {json.dumps(keys)}\n")

    asked = ("--policy", mine, "--samples", "5")
    assert ask("audit", going, "--key", "alice", *asked)[0] == 2
    code, bounded = ask("audit", going, "--key", "bob", *asked, "--mesh", "data=2")
    assert (code, bounded["method"], bounded["loose"]) == (0, "bounded", "")
    code, exact = ask("audit", going, "--key", "alice", *asked)
    assert (code, exact["method"]) == (0, "exact")
    assert exact["steps"] == bounded["steps"]
    audits = [said for said in logged(going) if isinstance(said, Audit)]
    # Of a mesh beside another on CPU honest replays are known; bits leave nothing to compare.
    assert [(a.auditor, a.method, a.walk, a.drift) for a in audits] == [
        ("globex", "bounded", "pass", "pass"),
        ("acme", "exact", "not checked", "no null known"),
    ]
    # Each has gradients of his own, committed under salts.
    assert len({audit.gradient_roots for audit in audits}) == 2

    assert (
        run(["monitor", str(going), "--once", "--key", "watch", "--operator", "eye.example"]) == 0
    )
    assert run(["prove", str(going)]) == 0
    code, verdict = ask("verify", going / "run.proof", "--policy", mine)
    assert (code, verdict["level"]) == (0, "sampled")
    assert verdict["headline"].startswith("sampled by acme, globex: 5 of 24 steps")
    assert [line["shortfall"] for line in verdict["audits"]] == ["", ""]
    assert verdict["properties"][0]["validators"] == ["acme", "globex"]

    # A reader who knows that both keys are acme's counts nothing that was said under another name.
    one = mine.read_text().replace('operator = "globex"', 'operator = "acme"')
    mine.write_text(one)
    code, verdict = ask("verify", going / "run.proof", "--policy", mine)
    assert (code, verdict["level"]) == (1, "witnessed")
