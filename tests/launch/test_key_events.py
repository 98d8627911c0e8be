"""`anh key endorse|rotate|revoke`: signed offline into a file, accepted by the new key, logged."""

from contextlib import closing
from pathlib import Path

import pytest

from attest.statements import KeyEvent, decode_statement
from launch.cli import run
from launch.key_home import find_key
from launch.logs import open_log_of


@pytest.fixture
def log(tmp_path: Path, key_home: Path) -> Path:
    for name in ("acme", "acme-2", "acme-owner"):
        assert run(["key", "new", name]) == 0
    assert run(["log", "init", str(tmp_path / "log"), "--origin", "log.example/runs"]) == 0
    return tmp_path / "log"


def event(action: str, out: Path, *keys: str, index: int = 0) -> int:
    options = ["--owner", "acme-owner", "--role", "auditor", "--origin", "log.example/runs"]
    return run(["key", action, *keys, *options, "--from", str(index), "--out", str(out)])


def test_events_go_through_files_into_a_log(log: Path, tmp_path: Path) -> None:
    endorsed, rotated, revoked = (tmp_path / name for name in ("1", "2", "3"))
    assert event("endorse", endorsed, "acme") == 0
    assert event("rotate", rotated, "acme", "acme-2", index=7) == 0
    assert event("revoke", revoked, "acme-2", index=9) == 0
    for index, file in enumerate((endorsed, rotated, revoked)):
        assert run(["key", "submit", str(file), str(log)]) == 0
        # Said again it is the same record.
        assert run(["key", "submit", str(file), str(log)]) == 0
        with closing(open_log_of(log)) as opened:
            assert opened.size == index + 1
    with closing(open_log_of(log)) as opened:
        said = [decode_statement(opened.entry(i).payload) for i in range(3)]
    assert all(isinstance(each, KeyEvent) for each in said)
    assert [(each.action, each.index) for each in said] == [  # type: ignore[union-attr]
        ("endorse", 0),
        ("rotate", 7),
        ("revoke", 9),
    ]


def test_offline_owner_needs_only_the_public_half(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "event"
    assert event("endorse", file, find_key("acme").public.hex()) == 0
    assert run(["key", "submit", str(file), str(log)]) == 2
    assert "anh key accept" in capsys.readouterr().err
    assert run(["key", "accept", str(file), "acme-2"]) == 2
    assert run(["key", "accept", str(file), "acme"]) == 0
    assert run(["key", "accept", str(file), "acme"]) == 0
    assert run(["key", "submit", str(file), str(log)]) == 0


def test_file_is_never_replaced(log: Path, tmp_path: Path) -> None:
    file = tmp_path / "event"
    assert event("revoke", file, "acme") == 0
    before = file.read_bytes()
    assert event("revoke", file, "acme", index=5) == 2
    assert file.read_bytes() == before


def test_submit_takes_key_events_only(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "event"
    file.write_bytes(b"{}")
    assert run(["key", "submit", str(file), str(log)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
