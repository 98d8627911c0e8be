"""Which witness lines of a checkpoint stay in a run proof."""

from pathlib import Path

import pytest

from anh_jax.run_directory import RunDirectory
from attest.keys import PrivateKey
from attest.log.sequencer import LocalLog
from attest.note import Note
from attest.policy import load_policy
from attest.proof import parse_proof
from attest.witness import Witness
from launch.cli import run
from launch.prover import prove


def signers(proof: Path) -> set[str]:
    """Return the names of those who signed the checkpoint of a run proof."""
    note = Note.from_bytes(parse_proof(proof.read_bytes()).checkpoint)
    return {signature.signer.name for signature in note.signatures}


def test_reader_whose_policy_names_another_witness_is_not_shown_the_logs_own(
    proven, key_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Witness.create(tmp_path / "memory", PrivateKey.generate(), "w.example/a").vkey
    policy, proof = tmp_path / "mine.toml", tmp_path / "run.proof"
    words = ["--like", str(proven.root / "policy.toml"), "--witness", f"{other.to_text()}=initech"]
    directory = RunDirectory.open(proven.root)
    with LocalLog.open(proven.root / "log") as log:
        prove(directory, log, output=proof)
        assert run(["policy", "new", str(policy), *words, "--level", "logged"]) == 0
        assert signers(proof) == {log.names.log.name, log.names.witness.name}
        assert run(["verify", str(proof), "--policy", str(policy)]) == 1
        assert "which nothing names" in capsys.readouterr().err

        prove(directory, log, output=proof, reader=load_policy(policy))
        assert signers(proof) == {log.names.log.name}
        # The proof is read now; what is missing is that the other witness has cosigned.
        assert run(["verify", str(proof), "--policy", str(policy)]) == 1
        assert "witness quorum" in capsys.readouterr().err
