"""Evidence about states holds only as it was signed, and only where both cannot be true."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import run_wording

from attest import canonical
from attest.digest_tree import level_hash
from attest.envelope import Envelope, sign
from attest.errors import AttestError, FormatError, RefusedError
from attest.keys import PrivateKey
from attest.served_tree import ServedTensor, ShownTree, TreeClaim, TreeManifest
from attest.state_evidence import (
    CommittedBy,
    SignedClaim,
    WithheldReport,
    WithheldTree,
    check_state_equivocation,
    check_withheld,
    encode_state_equivocation,
    encode_withheld,
)
from attest.statements import Row, Step, encode_statement
from attest.tensor_header import tensor_header

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


@dataclass
class SignedStep:
    """A run of one step, every key at hand."""

    run_key: PrivateKey
    worker: PrivateKey
    genesis: Envelope
    attempt: Envelope
    record: Envelope
    row: Row

    @property
    def run(self) -> str:
        return self.genesis.record_hash().hex()

    def by(self) -> CommittedBy:
        return CommittedBy(self.genesis, self.attempt, self.record)

    def claim(self, **changes: object) -> TreeClaim:
        made = TreeClaim(self.run, self.row.hash().hex(), "state", 1, TWO)
        return dataclasses.replace(made, **changes)

    def evidence(self, claim: TreeClaim, key: PrivateKey | None = None) -> bytes:
        signature = claim.sign(key or self.run_key)
        return encode_state_equivocation(SignedClaim(claim, signature), self.by())


@pytest.fixture
def signed() -> SignedStep:
    run_key, worker = PrivateKey.generate(), PrivateKey.generate()
    opening = dataclasses.replace(
        run_wording.genesis("4" * 64), state_root=THREE, run_key=run_key.public.hex()
    )
    genesis = sign(encode_statement(opening), [run_key])
    run = genesis.record_hash().hex()
    begun = dataclasses.replace(run_wording.attempt(run, 1), worker_keys=(worker.public.hex(),))
    attempt = sign(encode_statement(begun), [run_key])
    row = dataclasses.replace(run_wording.row(run, 1), state_root=ONE)
    said = Step(attempt=attempt.record_hash().hex(), row=row)
    record = sign(encode_statement(said), [worker])
    return SignedStep(run_key, worker, genesis, attempt, record, row)


@pytest.mark.parametrize("part", ["state", "gradient"])
def test_another_digest_under_the_run_key_contradicts_the_row(signed, part: str) -> None:
    claim = signed.claim(part=part)
    assert check_state_equivocation(signed.evidence(claim)) == claim


def test_another_state_0_under_the_run_key_contradicts_genesis(signed) -> None:
    claim = signed.claim(step=0, row=signed.run)
    data = encode_state_equivocation(
        SignedClaim(claim, claim.sign(signed.run_key)), CommittedBy(signed.genesis)
    )
    assert check_state_equivocation(data) == claim
    same = dataclasses.replace(claim, root=THREE)
    signature = same.sign(signed.run_key)
    data = encode_state_equivocation(SignedClaim(same, signature), CommittedBy(signed.genesis))
    with pytest.raises(RefusedError, match="what the run committed"):
        check_state_equivocation(data)


REFUSED: dict[str, Callable[[SignedStep], bytes]] = {
    "what the run committed": lambda s: s.evidence(s.claim(root=ONE)),
    "does not verify": lambda s: s.evidence(s.claim(), s.worker),
    "of another run": lambda s: s.evidence(s.claim(run=TWO)),
    # A stale branch's row: what it commits is not what the claim is about.
    "about another row": lambda s: s.evidence(s.claim(row=TWO)),
    "of another step": lambda s: s.evidence(s.claim(step=2)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_contradicts_nothing_is_refused(signed, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        check_state_equivocation(REFUSED[words](signed))


def at_genesis(signed: SignedStep, **changes: object) -> bytes:
    """Return the run key's word about state 0, against genesis alone."""
    claim = signed.claim(**{"step": 0, "row": signed.run, **changes})
    by = CommittedBy(signed.genesis)
    return encode_state_equivocation(SignedClaim(claim, claim.sign(signed.run_key)), by)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": TWO, "row": TWO}, "of another run"),
        ({"row": TWO}, "commits no such digest"),
        ({"part": "gradient"}, "commits no such digest"),
    ],
    ids=str,
)
def test_claim_about_genesis_is_about_its_state_0_alone(signed, changes, words: str) -> None:
    with pytest.raises(AttestError, match=words):
        check_state_equivocation(at_genesis(signed, **changes))


def with_row(signed: SignedStep, *, attempt: str = "", **changes: object) -> SignedStep:
    """Return the step with another row, which the worker signed as well."""
    row = dataclasses.replace(signed.row, **changes)
    said = Step(attempt=attempt or signed.attempt.record_hash().hex(), row=row)
    return dataclasses.replace(
        signed, row=row, record=sign(encode_statement(said), [signed.worker])
    )


def test_row_that_commits_no_state_contradicts_no_claim_about_one(signed) -> None:
    skipped = with_row(signed, state_root=None)
    with pytest.raises(RefusedError, match="commits no such digest"):
        check_state_equivocation(skipped.evidence(skipped.claim()))
    assert check_state_equivocation(skipped.evidence(skipped.claim(part="gradient")))


def test_row_of_another_attempt_or_run_contradicts_nothing(signed) -> None:
    # One worker key may have signed for two attempts: whose row it is, its statement says.
    other = with_row(signed, attempt=TWO)
    with pytest.raises(RefusedError, match="of another attempt"):
        check_state_equivocation(other.evidence(other.claim()))
    other = with_row(signed, run=TWO, prev=TWO)
    with pytest.raises(RefusedError, match="of another step"):
        check_state_equivocation(other.evidence(other.claim()))


def test_row_that_the_attempts_worker_did_not_sign_is_refused(signed) -> None:
    stranger = PrivateKey.generate()
    other = dataclasses.replace(signed, record=sign(signed.record.payload, [stranger]))
    with pytest.raises(RefusedError, match="not signed by the attempt's first worker"):
        check_state_equivocation(other.evidence(other.claim()))


def test_attempt_that_the_run_key_did_not_sign_is_refused(signed) -> None:
    other = dataclasses.replace(signed, attempt=sign(signed.attempt.payload, [signed.worker]))
    with pytest.raises(RefusedError):
        check_state_equivocation(other.evidence(other.claim()))


REPORT = WithheldReport(
    run=ONE,
    auditor="acme",
    source="http://localhost:8471",
    at=1_790_000_000,
    trees=(
        WithheldTree("state", 7, TWO, ONE, "other bytes", "tile 0,1 is odd", "w", (0, 1), TWO),
        WithheldTree("gradient", 8, TWO, ONE, "none", "no answer", "", None, ""),
    ),
)


def test_report_of_withheld_states_comes_back_with_its_key() -> None:
    key = PrivateKey.generate()
    found = check_withheld(encode_withheld(REPORT, key))
    assert (found.report, found.key) == (REPORT, key.public)


@pytest.mark.parametrize(
    ("name", "value"),
    [("at", 1), ("auditor", "globex"), ("source", "elsewhere"), ("run", TWO)],
)
def test_changed_report_does_not_verify(name: str, value: object) -> None:
    fields = json.loads(encode_withheld(REPORT, PrivateKey.generate()))
    fields["report"][name] = value
    with pytest.raises(RefusedError, match="does not verify"):
        check_withheld(canonical.encode(fields))


@pytest.mark.parametrize("flip", range(0, 900, 37))
def test_damaged_evidence_never_passes(signed, flip: int) -> None:
    checks = (check_state_equivocation, check_withheld)
    files = (signed.evidence(signed.claim()), encode_withheld(REPORT, PrivateKey.generate()))
    for check, data in zip(checks, files, strict=True):
        damaged = bytearray(data)
        damaged[flip % len(damaged)] ^= 1
        with pytest.raises(AttestError):
            check(bytes(damaged))


def manifest(**changes: object) -> TreeManifest:
    header = tensor_header(("w",), "float32", (4,))
    made = TreeManifest(
        ONE, TWO, "state", 3, "blake3", b"s" * 32, (ServedTensor(header, b"t" * 32),)
    )
    return dataclasses.replace(made, **changes)


def test_manifest_comes_back_as_it_was_written() -> None:
    shown = ShownTree(manifest(), b"x" * 64)
    assert ShownTree.from_bytes(shown.to_bytes()) == shown
    assert ShownTree.from_bytes(ShownTree(manifest(), None).to_bytes()).signature is None


@pytest.mark.parametrize("change", [{"step": 4}, {"structure": b"u" * 32}, {"alg": "sha256"}])
def test_root_of_a_manifest_covers_what_it_says(change: dict[str, object]) -> None:
    hashed, other = level_hash("blake3"), manifest(**change)
    assert manifest().root(hashed) != other.root(level_hash(other.alg))


def test_manifest_with_a_tensor_twice_is_refused() -> None:
    twice = manifest(tensors=manifest().tensors * 2)
    with pytest.raises(FormatError, match="sorted by path"):
        TreeManifest.from_bytes(twice.to_bytes())
