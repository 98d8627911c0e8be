"""Keys: made once, private, shown by their public half only."""

import json
import stat
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from attest.keys import PrivateKey, VerifierKey
from launch.cli import run
from launch.key_home import find_key, key_folder


def test_new_key_is_private_and_never_replaced(
    key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["key", "new", "acme"]) == 0
    path = key_home / "acme"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_home.stat().st_mode) == 0o700
    before = path.read_bytes()
    assert PrivateKey.load(path).public.hex() in capsys.readouterr().out
    assert run(["key", "new", "acme"]) == 2
    assert "choose another name, keys are never replaced" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_no_output_ever_holds_the_secret(
    key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["key", "new", "acme", "--json"])
    run(["key", "show", "acme", "--json"])
    run(["key", "show", "acme", "--vkey"])
    run(["inspect", str(key_home / "acme")])
    shown = capsys.readouterr().out
    secret = bytes(find_key("acme")._key)  # pyright: ignore[reportPrivateUsage]
    assert isinstance(find_key("acme")._key, SigningKey)  # pyright: ignore[reportPrivateUsage]
    assert secret.hex() not in shown and "PRIVATE KEY" not in shown


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "a" * 65, "naïve", "a b"])
def test_names_that_could_leave_the_folder_are_refused(
    name: str, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["key", "new", name]) == 2
    assert "key name" in capsys.readouterr().err
    assert not key_home.exists()


def test_show_prints_vkeys_that_read_back(
    key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["key", "new", "acme"])
    capsys.readouterr()
    assert run(["key", "show", "acme", "--vkey"]) == 0
    keys = [VerifierKey.from_text(line) for line in capsys.readouterr().out.splitlines()]
    assert [key.algorithm for key in keys] == [1, 4]
    assert {key.public for key in keys} == {find_key("acme").public}


def test_show_of_a_run_gives_its_log_and_witness_their_real_names(
    finished, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["key", "show", str(finished.root), "--json"]) == 0
    keys = {key["name"]: key for key in json.loads(capsys.readouterr().out)["keys"]}
    assert set(keys) == set(finished.keys)
    log = VerifierKey.from_text(keys["log"]["vkeys"][0])
    assert (log.name, log.algorithm) == ("lab/run", 1)
    witness = VerifierKey.from_text(keys["witness"]["vkeys"][0])
    assert (witness.name, witness.algorithm) == ("lab/run/witness", 4)
    assert keys["auditor"]["public"] == finished.keys["auditor"].public.hex()


def test_show_without_a_name_lists_all(key_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["key", "show"]) == 2
    assert "anh key new" in capsys.readouterr().err
    for name in ("a", "b"):
        run(["key", "new", name])
    capsys.readouterr()
    assert run(["key", "show", "--json"]) == 0
    assert [key["name"] for key in json.loads(capsys.readouterr().out)["keys"]] == ["a", "b"]


def test_key_open_to_others_is_refused(key_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["key", "new", "acme"])
    (key_home / "acme").chmod(0o644)
    assert run(["key", "show", "acme"]) == 2
    assert "chmod 600" in capsys.readouterr().err


def test_home_without_variable_is_in_the_config_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ANH_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert key_folder() == tmp_path / ".config" / "anh" / "keys"
