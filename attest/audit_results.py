"""The results of an audit, step by step, held against the receipt that commits to them.

`audits/<n>.json` of a run directory. A receipt says how many steps passed; this file says which,
how near each came to its threshold, and what its rounding was estimated with. All of it follows
from the receipt or is under its results root, so it may come from anybody.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NoReturn

from attest import canonical
from attest.canonical import parse_hex_float
from attest.errors import RefusedError
from attest.merkle import leaf_hash, tree_root
from attest.proof import ProofRecord, RunProof
from attest.sample import sample_steps
from attest.schema import (
    Count,
    Hex64,
    OptionalHexFloat,
    Ordinal,
    built,
    integer,
    listed,
    mapping,
    matching,
    one_of,
    text,
)
from attest.spread_seed import spread_seed, step_seed
from attest.statements import Audit, ContractStatement

__all__ = ["AuditResults", "ShownResult", "check_results"]

MAX_RESULTS_BYTES = 32 << 20
_LONGEST = 4000
_SEED = matching(r"[0-9a-f]{16}", "16 hex digits")
_NO_SEED = matching(r"([0-9a-f]{16})?", "16 hex digits or nothing")
_ROW = matching(r"([0-9a-f]{64})?", "64 hex digits or nothing")
_WORDS = text(longest=_LONGEST, shortest=0)
_STATISTICS = ("a", "a_row", "zeros", "a2", "b", "walk")


@dataclass(frozen=True, slots=True)
class ShownResult:
    """Hold what one step's re-execution gave (`anh_jax.audit.results.StepResult`)."""

    step: Ordinal
    outcome: Annotated[str, one_of("pass", "refuted", "unattestable", "withheld")]
    words: Annotated[str, _WORDS]
    attempt: Count
    row: Annotated[str, _ROW]
    differs: Annotated[tuple[str, ...], listed(text())]
    repeats: Annotated[str, one_of("equal", "different", "none")]
    spread_seed: Annotated[str, _NO_SEED]
    a: OptionalHexFloat
    a_row: OptionalHexFloat
    zeros: OptionalHexFloat
    a2: OptionalHexFloat
    b: OptionalHexFloat
    walk: OptionalHexFloat

    @property
    def weighed(self) -> bool:
        """Say whether rounding was estimated for it."""
        return any(getattr(self, name) is not None for name in _STATISTICS)


@dataclass(frozen=True, slots=True)
class RunCheck:
    """Hold what a check of the run as a whole found, in words."""

    verdict: Annotated[str, one_of("pass", "fail", "not checked")]
    words: Annotated[str, _WORDS]


@dataclass(frozen=True, slots=True)
class AuditResults:
    """Hold the file; `results` are by step."""

    version: Annotated[int, integer(1, 1)]
    receipt: Hex64
    run: Hex64
    final: Hex64
    results_root: Hex64
    results: Annotated[tuple[ShownResult, ...], listed(built(ShownResult))]
    checks: Annotated[Mapping[str, RunCheck], mapping(built(RunCheck))]
    spread_seed: Annotated[str, _SEED]
    milliseconds: Count


def check_results(data: bytes, proof: RunProof) -> AuditResults:
    """Check a results file against its receipt in a proof; the proof itself is checked elsewhere.

    Raises:
        FormatError: if the bytes are no results file in its one spelling.
        RefusedError: if the proof holds no such receipt, or one that says something else.
    """
    told = canonical.decode(data, max_bytes=MAX_RESULTS_BYTES)
    found: AuditResults = _FILE.load(told, "results")
    record = next((r for r in proof.of_kind(Audit) if r.hash == found.receipt), None)
    if record is None or not isinstance(record.statement, Audit):
        _refuse(f"the proof holds no receipt {found.receipt[:16]}")
    audit = record.statement
    if (found.run, found.final) != (audit.run, audit.final):
        _refuse("run or final record are not the receipt's")
    leaves = [leaf_hash(canonical.encode(_RESULT.dump(result))) for result in found.results]
    if not found.results_root == audit.results_root == tree_root(leaves).hex():
        _refuse("they are not those that the receipt commits to: another root")
    _check_counts(found, audit)
    _check_sample(found, audit, proof)
    _check_seeds(found, record, audit)
    return found


_RESULT = built(ShownResult)
_FILE = built(AuditResults)


def _check_counts(found: AuditResults, audit: Audit) -> None:
    """Check that the receipt's numbers are those of the results."""
    outcomes = Counter(result.outcome for result in found.results)
    counts = audit.counts
    said = {
        "pass": counts.pass_,
        "refuted": counts.refuted,
        "unattestable": counts.unattestable,
        "withheld": counts.withheld,
    }
    if any(outcomes[name] != number for name, number in said.items()):
        _refuse("the receipt counts other outcomes")
    for name in _STATISTICS:
        if _worst(found, name) != getattr(audit.worst, name):
            _refuse(f"the receipt's worst {name} is not the largest one")
    for name, check in found.checks.items():
        if getattr(audit, name, None) != check.verdict:
            _refuse(f"{name} is not what the receipt says")


def _worst(found: AuditResults, name: str) -> str | None:
    """Return the largest statistic as it is written; what is no number is above all."""
    texts = [value for r in found.results if (value := getattr(r, name)) is not None]
    if "nan" in texts:
        return "nan"
    return max(texts, key=parse_hex_float, default=None)


def _check_sample(found: AuditResults, audit: Audit, proof: RunProof) -> None:
    """Check that each step comes once, and that the drawn ones and the last one are there."""
    steps = [result.step for result in found.results]
    if any(a >= b for a, b in zip(steps, steps[1:], strict=False)):
        _refuse("steps do not rise")
    contracts = [r.statement for r in proof.of_kind(ContractStatement)]
    if len(contracts) != 1 or not isinstance(contract := contracts[0], ContractStatement):
        _refuse("the proof does not hold one contract")
    total = contract.contract.steps
    if steps and steps[-1] > total:
        _refuse(f"step {steps[-1]:,} is beyond the contract's {total:,}")
    if audit.sample == "chosen":
        return
    # The proof is not verified yet: its numbers alone may not decide how long drawing takes.
    if audit.k > len(steps):
        _refuse(f"{len(steps):,} results for a sample of {audit.k:,} steps")
    nonces = {source.keyid: bytes.fromhex(source.nonce) for source in audit.sources}
    run, final = bytes.fromhex(audit.run), bytes.fromhex(audit.final)
    drawn = {total, *sample_steps(run, final, nonces, total, audit.k)}
    if missing := drawn - set(steps):
        _refuse(f"step {min(missing):,} is in the sample and has no result")


def _check_seeds(found: AuditResults, record: ProofRecord, audit: Audit) -> None:
    """Check that rounding was estimated with what final record and nonces give, and nothing else.

    Closes: an auditor who draws the noise until a step passes, or fails.
    """
    nonces = {source.keyid: source.nonce for source in audit.sources}
    seed = spread_seed(audit.final, record.signer, nonces)
    if found.spread_seed != f"{seed:016x}":
        _refuse("spreadSeed is not the one that follows from final record and nonces")
    for result in found.results:
        expected = f"{step_seed(seed, result.step):016x}"
        # Where bits alone were compared, nothing was estimated.
        if result.spread_seed != expected and (result.spread_seed or result.weighed):
            _refuse(f"step {result.step:,} was weighed with another noise than the audit's")


def _refuse(message: str) -> NoReturn:
    raise RefusedError(f"results: {message}", check="results")
