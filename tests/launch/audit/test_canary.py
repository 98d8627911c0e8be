"""A canary run names who signs without computing, and who signs what another computed."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anh_jax.audit.canary import choose_faults
from anh_jax.errors import ConfigError
from attest.canary import canary_nonce
from attest.envelope import sign
from attest.keys import PrivateKey
from attest.log.sequencer import LocalLog
from attest.sample import commitment, sample_steps
from attest.statements import Audit, Counts, Intent, decode_statement, encode_statement
from launch.canary_planting import Answer, read_answer
from launch.cli import run
from launch.errors import CommandError

STEPS = 24
ALL = ("--samples", str(STEPS))


@dataclasses.dataclass(frozen=True)
class Planted:
    """A canary run and its answer."""

    root: Path
    answer: Path

    @property
    def faults(self) -> tuple[int, ...]:
        return read_answer(self.answer).faults

    def log(self, audit: Audit, key: PrivateKey) -> None:
        with LocalLog.open(self.root / "log") as log:
            log.append([sign(encode_statement(audit), [key])], keys=[key.public])

    def audits(self) -> list[Audit]:
        with LocalLog.open(self.root / "log") as log:
            said = [decode_statement(entry.payload) for entry in log.entries(0, log.size)]
        return [statement for statement in said if isinstance(statement, Audit)]


@pytest.fixture(scope="session")
def planted_once(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("tried")
    made = Planted(folder / "run", folder / "answer.json")
    asked = ["canary", "plant", str(config), "--run-dir", str(made.root)]
    assert run([*asked, "--faults", "3", "--answer", str(made.answer)]) == 0
    return made


@pytest.fixture(scope="session")
def audited_once(planted_once: Planted, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Return a copy of the canary run that acme has audited, computing every step."""
    folder = tmp_path_factory.mktemp("audited")
    shutil.copytree(planted_once.root, folder / "run")
    patch = pytest.MonkeyPatch()
    patch.setenv("ANH_HOME", str(folder / "home"))
    try:
        assert run(["key", "new", "alice"]) == 0
        who = ["--key", "alice", "--operator", "acme"]
        assert run(["audit", str(folder / "run"), *who, *ALL]) == 1
    finally:
        patch.undo()
    return Planted(folder / "run", planted_once.answer)


@pytest.fixture
def unaudited(planted_once: Planted, tmp_path: Path, key_home: Path) -> Planted:
    """Return a copy of the canary run that nobody has audited."""
    shutil.copytree(planted_once.root, tmp_path / "run")
    return Planted(tmp_path / "run", planted_once.answer)


@pytest.fixture
def planted(audited_once: Planted, tmp_path: Path, key_home: Path) -> Planted:
    """Return a copy of the canary run with acme's receipt."""
    shutil.copytree(audited_once.root, tmp_path / "run")
    return Planted(tmp_path / "run", audited_once.answer)


@pytest.fixture
def honest(planted: Planted) -> Audit:
    """Return the receipt of acme."""
    (audit,) = planted.audits()
    return audit


def lazy(honest: Audit, **changes: Any) -> Audit:
    """Return the receipt of somebody who passes everything and has computed nothing."""
    made = {"auditor": "idle", "gradient_roots": "5" * 64, "export": "pass", **changes}
    return dataclasses.replace(honest, counts=Counts(honest.steps, 0, 0, 0), **made)


def whole(audit: Audit) -> Audit:
    """Return a receipt with its withheld steps counted as executed."""
    counts = audit.counts
    every = audit.steps + counts.withheld
    told = dataclasses.replace(counts, withheld=0, refuted=every - counts.pass_ -
                               counts.unattestable)  # fmt: skip
    return dataclasses.replace(audit, steps=every, counts=told)


def check(ask: Callable[..., Any], planted: Planted, *more: object) -> tuple[int, list[Any]]:
    code, told = ask("canary", "check", planted.root, "--answer", planted.answer, *more)
    return code, told["receipts"]


def test_canary_run_looks_like_any_other_and_is_verified(unaudited: Planted) -> None:
    policy = str(unaudited.root / "policy.toml")
    assert run(["verify", str(unaudited.root / "run.proof"), "--policy", policy]) == 0
    assert unaudited.answer.stat().st_mode & 0o77 == 0
    secret = read_answer(unaudited.answer)
    assert len(secret.faults) == 3 and STEPS not in secret.faults
    files = [path.read_bytes() for path in unaudited.root.rglob("*") if path.is_file()]
    assert not any(secret.salt.hex().encode() in data for data in files)
    assert not any(b"canary" in data for data in files)
    assert [p.name for p in unaudited.root.iterdir() if "answer" in p.name] == []


def test_honest_auditor_finds_a_fault_and_a_lazy_one_is_named(
    planted: Planted, honest: Audit, ask: Callable[..., Any]
) -> None:
    code, told = check(ask, planted)
    assert (code, [t["finding"] for t in told]) == (0, ["found"])
    assert told[0]["hits"] == list(planted.faults)
    planted.log(lazy(whole(honest)), PrivateKey.generate())
    code, told = check(ask, planted)
    assert (code, [t["finding"] for t in told]) == (1, ["found", "lazy"])
    assert told[1]["auditor"] == "idle" and "it passed 24 steps" in told[1]["words"]


def test_copied_receipt_is_named(planted: Planted, honest: Audit, ask: Callable[..., Any]) -> None:
    planted.log(dataclasses.replace(honest, auditor="copier"), PrivateKey.generate())
    code, told = check(ask, planted)
    assert (code, [t["finding"] for t in told]) == (1, ["found", "copied"])
    assert "those of acme" in told[1]["words"]


def test_own_gradients_must_open_and_be_ones_own(
    planted: Planted, audited_once: Planted, ask: Callable[..., Any], tmp_path: Path
) -> None:
    (kept,) = (audited_once.root.parent / "home" / "audits").glob("*.gradients.json")
    assert check(ask, planted, "--salts", kept)[0] == 0
    other = json.loads(kept.read_bytes())
    other["gradients"][0]["salt"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(other))
    code, told = check(ask, planted, "--salts", tmp_path / "other.json")
    assert (code, told[0]["words"]) == (1, "its salts do not open its gradient roots")


def test_gradient_of_a_faulty_step_taken_from_the_row_is_nobodys_own(
    planted: Planted, honest: Audit, ask: Callable[..., Any], tmp_path: Path
) -> None:
    """An auditor who reads rows and refutes at random still has no gradient of his own."""
    from anh_jax.audit.results import opened_root
    from anh_jax.run_directory import RunDirectory
    from attest import step_file
    from attest.statements import Step

    path = RunDirectory.open(planted.root).step_file(attempt=1, rank=0)
    rows = [decode_statement(envelope.payload) for envelope in step_file.read(path)]
    own = {r.row.step: r.row.gradient_root for r in rows if isinstance(r, Step)}
    salts = {step: bytes([step]) * 32 for step in own}
    forged = dataclasses.replace(
        honest, auditor="idle", gradient_roots=opened_root(own, salts).hex()
    )
    key = PrivateKey.generate()
    planted.log(forged, key)
    record = sign(encode_statement(forged), [key]).record_hash().hex()
    document = {
        "version": 1,
        "receipt": record,
        "gradients": [{"step": s, "salt": salts[s].hex(), "gradientRoot": own[s]} for s in own],
    }
    (tmp_path / "salts.json").write_text(json.dumps(document))
    assert check(ask, planted)[0] == 0
    code, told = check(ask, planted, "--salts", tmp_path / "salts.json")
    assert code == 1
    assert "is the one that the row states" in told[1]["words"]


def test_sample_without_a_fault_tells_nothing(
    planted: Planted, honest: Audit, ask: Callable[..., Any]
) -> None:
    audit = whole(honest)
    run_id, final = bytes.fromhex(audit.run), bytes.fromhex(audit.final)
    faults = set(planted.faults)

    def sample(k: int) -> set[int]:
        return {*sample_steps(run_id, final, {}, STEPS, k), STEPS}

    # The first step drawn may itself be faulty: then every sample tells.
    size = max((k for k in range(1, STEPS) if not faults & sample(k)), default=1)
    steps = len(sample(size))
    counts = Counts(steps, 0, 0, 0)
    spared = dataclasses.replace(audit, auditor="idle", k=size, steps=steps, counts=counts)
    spared = dataclasses.replace(spared, gradient_roots="5" * 64)
    planted.log(spared, PrivateKey.generate())
    code, told = check(ask, planted)
    expected = "lazy" if faults & sample(size) else "not hit"
    assert told[1]["finding"] == expected
    assert code == (1 if expected == "lazy" else 0)


def test_answer_that_was_not_sealed_before_the_final_is_refused(
    planted: Planted, honest: Audit, ask: Callable[..., Any], tmp_path: Path
) -> None:
    invented = Answer(read_answer(planted.answer).run, bytes(32), (1, 2, 3))
    key = PrivateKey.generate()
    late = Intent("run", invented.run, "lab", commitment(invented.nonce).hex())
    (tmp_path / "invented.json").write_bytes(invented.to_bytes())
    told = ask("canary", "check", planted.root, "--answer", tmp_path / "invented.json")[1]
    assert "was not committed to before the final record" in told["error"]
    with LocalLog.open(planted.root / "log") as log, pytest.raises(Exception, match="final"):
        log.append([sign(encode_statement(late), [key])], keys=[key.public])


def test_answer_commits_to_run_salt_and_every_step() -> None:
    base = canary_nonce("1" * 64, bytes(32), (3, 7))
    assert base != canary_nonce("2" * 64, bytes(32), (3, 7))
    assert base != canary_nonce("1" * 64, b"\x01" * 32, (3, 7))
    assert base != canary_nonce("1" * 64, bytes(32), (3, 8))


def test_faults_never_lie_at_the_last_step() -> None:
    assert choose_faults(steps=3, count=2) == (1, 2)
    for count in (0, 3):
        with pytest.raises(ConfigError, match="between 1 and 2"):
            choose_faults(steps=3, count=count)


def test_answer_is_kept_away_from_the_run(config: Path, tmp_path: Path, ask) -> None:
    root = tmp_path / "run"
    for answer in (root / "answer.json", config):
        asked = ("canary", "plant", config, "--run-dir", root, "--answer", answer)
        code, told = ask(*asked)
        assert code == 2 and "outside the run directory" in told["error"]
    assert not root.exists()


def test_run_without_receipts_tries_nobody(unaudited: Planted, ask: Callable[..., Any]) -> None:
    assert check(ask, unaudited) == (2, [])


@pytest.fixture
def shown(
    planted: Planted, audited_once: Planted, ask: Callable[..., Any], tmp_path: Path
) -> Callable[..., Any]:
    """Return a function that shows the answer to somebody who trusts acme, idle and the log."""
    idle = PrivateKey.generate()
    acme = PrivateKey.load(audited_once.root.parent / "home" / "keys" / "alice")
    own, mine = planted.root / "policy.toml", tmp_path / "mine.toml"
    named = {"acme": acme, "idle": idle}
    who = [f"--auditor={key.public.hex()}={name}" for name, key in named.items()]
    assert run(["policy", "new", str(mine), "--like", str(own), *who]) == 0

    def verify(*audits: Audit, answer: Path | None = None) -> tuple[int, Any]:
        for audit in audits:
            planted.log(audit, idle)
        assert run(["prove", str(planted.root)]) == 0
        rest = ("--proof", planted.root / "run.proof", "--policy", mine)
        return ask("verify", answer or planted.answer, *rest)

    return verify


def test_somebody_who_was_not_there_sees_who_passed_a_faulty_step(
    shown, planted: Planted, honest: Audit
) -> None:
    code, told = shown()
    assert (code, [t["finding"] for t in told["receipts"]]) == (0, ["found"])
    code, told = shown(lazy(whole(honest)))
    assert (code, [t["finding"] for t in told["receipts"]]) == (1, ["found", "lazy"])
    assert told["words"].startswith("FAILED: idle signed what was not computed")
    assert told["receipts"][1]["hits"] == list(planted.faults)


def test_answer_that_the_proof_shows_no_commitment_to_is_refused(
    shown, planted: Planted, tmp_path: Path
) -> None:
    path = tmp_path / "invented.json"
    path.write_bytes(Answer(read_answer(planted.answer).run, bytes(32), (1, 2, 3)).to_bytes())
    code, told = shown(answer=path)
    assert code == 1 and "was not committed to before the final record" in told["error"]
    path.write_bytes(Answer("1" * 64, bytes(32), (1, 2, 3)).to_bytes())
    code, told = shown(answer=path)
    assert code == 1 and "the answer is of run 1111" in told["error"]


@pytest.mark.parametrize("faults", [(3, 3), (7, 3), (), (0, 3), (True, 3)], ids=str)
def test_fault_named_twice_or_out_of_order_is_no_answer(faults: Any, tmp_path: Path) -> None:
    # Counted twice, one fault would make an auditor lazy who refuted it.
    path = tmp_path / "answer.json"
    path.write_bytes(Answer("1" * 64, bytes(32), faults).to_bytes())
    with pytest.raises(CommandError, match="is no answer of a canary run"):
        read_answer(path)
