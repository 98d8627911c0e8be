"""One record and its path: every byte of the file counts, and so does every key."""

from dataclasses import replace
from pathlib import Path

import pytest

from attest.errors import AttestError, FormatError, InputError, RefusedError
from attest.level import Level
from attest.memory import Memory
from attest.policy import load_policy, parse_policy, policy_text
from attest.proof import RunProof, parse_proof
from attest.record_proof import record_proof, verify_record
from attest.tlog_proof import TlogProof
from attest.trust import Policy, Requirement
from attest.witness_groups import WitnessGroup

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture(scope="module")
def run() -> RunProof:
    return parse_proof((GOLDEN / "run.proof").read_bytes())


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(GOLDEN / "policy.toml")


def exported(run: RunProof, kind: str) -> bytes:
    (record,) = (r for r in run.records if kind == r.statement.KIND)
    return record_proof(run, record).to_bytes()


def test_each_record_of_a_run_proof_is_proven_alone(run: RunProof, policy: Policy) -> None:
    for record in run.records:
        found = verify_record(record_proof(run, record).to_bytes(), policy)
        assert found.record == record and found.exit_code == 0
        assert found.lines()[0].startswith(f"{record.statement.KIND} {record.hash[:16]}")


def test_no_single_bit_of_the_file_can_be_another(run: RunProof, policy: Policy) -> None:
    # The witness's line alone could be left out or be another's where the quorum does without it.
    data = exported(run, "property")
    for place in range(len(data)):
        altered = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(AttestError):
            verify_record(altered, policy)


def test_a_line_by_a_witness_that_nobody_named_is_passed_over(
    run: RunProof, policy: Policy
) -> None:
    one = TlogProof.from_bytes(exported(run, "final"))
    *_, line = one.note.decode().splitlines()
    stranger = line.replace("/witness ", "/stranger ")
    noted = replace(one, note=one.note + f"{stranger}\n".encode())
    assert verify_record(noted.to_bytes(), policy).exit_code == 0


def test_a_record_by_a_key_that_the_policy_does_not_name_is_refused(
    run: RunProof, policy: Policy
) -> None:
    others = tuple(entry for entry in policy.keys if entry.role.value != "auditor")
    without = replace(policy, keys=others)
    with pytest.raises(RefusedError, match="no auditor key of the policy"):
        verify_record(exported(run, "audit"), without)


def test_a_run_key_is_vouched_for_by_the_run_proof_alone(run: RunProof, policy: Policy) -> None:
    unnamed = replace(policy, keys=tuple(e for e in policy.keys if e.role.value != "run"))
    assert "does not name" in verify_record(exported(run, "genesis"), unnamed).signed
    with pytest.raises(RefusedError, match="--proof"):
        verify_record(exported(run, "final"), unnamed)
    assert verify_record(exported(run, "final"), unnamed, run=run).exit_code == 0


def test_what_one_record_cannot_show_is_not_met(run: RunProof, policy: Policy) -> None:
    for level in (Level.WITNESSED, Level.SAMPLED):
        found = verify_record(exported(run, "final"), replace(policy, require=Requirement(level)))
        assert found.exit_code == 1 and "only a run proof" in found.lines()[-1]


def test_a_run_that_the_policy_does_not_accept_is_refused(run: RunProof, policy: Policy) -> None:
    with pytest.raises(RefusedError, match="accepted"):
        verify_record(exported(run, "final"), replace(policy, runs=("a" * 64,)))


def test_a_file_without_its_record_is_refused(run: RunProof, policy: Policy) -> None:
    bare = replace(TlogProof.from_bytes(exported(run, "final")), extra=None)
    with pytest.raises(FormatError, match="holds no record"):
        verify_record(bare.to_bytes(), policy)


def test_a_group_of_the_policy_that_has_not_cosigned_refuses(run: RunProof, policy: Policy) -> None:
    here = policy.witnesses[0]
    other = replace(here, operator="other", key=replace(here.key, public=policy_key(7)))
    asked = replace(
        policy,
        witnesses=(here, other),
        groups=(WitnessGroup("abroad", 1, ("other",)),),
    )
    assert parse_policy(policy_text(asked)) == asked
    with pytest.raises(InputError, match="no witness operator"):
        replace(asked, groups=(WitnessGroup("abroad", 1, ("nobody",)),))
    with pytest.raises(RefusedError, match="of group abroad"):
        verify_record(exported(run, "final"), asked)
    met = replace(asked, groups=(WitnessGroup("any", 1, ("other", here.operator)),))
    assert verify_record(exported(run, "final"), met).exit_code == 0


def policy_key(seed: int) -> bytes:
    from attest.keys import PrivateKey

    return PrivateKey(bytes([seed]) * 32).public


def test_the_log_is_remembered(run: RunProof, policy: Policy, tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert (
        "first checkpoint" in verify_record(exported(run, "final"), policy, history=memory).history
    )
    assert verify_record(exported(run, "genesis"), policy, history=memory).history == ""


def test_the_extra_line_comes_back(run: RunProof) -> None:
    one = TlogProof.from_bytes(exported(run, "final"))
    assert one.extra is not None
    assert TlogProof.from_bytes(one.to_bytes()) == one
    assert TlogProof.from_bytes(replace(one, extra=b"").to_bytes()).extra == b""
    with pytest.raises(FormatError):
        TlogProof.from_bytes(one.to_bytes().replace(b"\nextra ", b"\nextra  "))
