"""A proof that a real run wrote once: readers of proof version 1 must be able to check it for ever.

Made by `anh train configs/digits.yaml training.steps=40` and `anh audit --samples 4`; never remade
unless the version changes.
"""

from pathlib import Path

from attest.client import verify_run
from attest.policy import load_policy

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def test_the_golden_proof_is_verified_with_its_words() -> None:
    verdict = verify_run((GOLDEN / "run.proof").read_bytes(), load_policy(GOLDEN / "policy.toml"))
    lines = verdict.text().splitlines()
    assert verdict.exit_code == 0
    assert lines[0] == "logged (self): integrity, not honesty"
    assert any("4 of 4 steps passed" in line and "self-sampled" in line for line in lines)
    assert verdict.steps == 40


def test_the_golden_proof_is_small() -> None:
    assert (GOLDEN / "run.proof").stat().st_size <= 16 * 1024
