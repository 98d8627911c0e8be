"""Holds the receipts of a canary run against its answer: who passed a step that cannot pass."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anh_jax.attested_run import run_id
from anh_jax.audit.results import opened_root
from anh_jax.audit.transcript import Transcript
from anh_jax.run_directory import RunDirectory
from attest import merkle
from attest.log.sequencer import LocalLog
from attest.sample import commitment, sample_steps
from attest.statements import Audit, decode_statement
from launch.canary_planting import Answer
from launch.errors import CommandError
from launch.logged_run import read_announced, read_closed_run

Finding = Literal["found", "not hit", "lazy", "copied", "not known"]
_EMPTY = merkle.tree_root([]).hex()


@dataclass(frozen=True, slots=True)
class Tried:
    """What a receipt shows of its auditor.

    `found`: the faults in its sample are among what it refutes. `not hit`: its sample holds none.
    `lazy`: it passes a step that cannot pass, or cannot show what it computed. `copied`: its
    gradients are another auditor's. `not known`: its steps were chosen and are not shown.
    """

    index: int
    operator: str
    hits: tuple[int, ...]
    finding: Finding
    words: str


@dataclass(frozen=True, slots=True)
class _Receipt:
    index: int
    record: str
    keyid: str
    audit: Audit


def check(directory: Path, answer: Answer, salts: Sequence[Path]) -> tuple[Tried, ...]:
    """Judge every receipt in the log of a canary run; `salts` are files that auditors handed over.

    Raises CommandError where the answer is another run's, or was not committed to before the final
    record.
    """
    run = RunDirectory.open(directory)
    if run_id(run) != answer.run:
        raise CommandError(f"{directory}: is run {run_id(run)[:16]}, the answer is of another")
    with LocalLog.open(run.log) as log:
        announced = read_announced(log, answer.run)
        final = announced.final_index
        sealed = commitment(answer.nonce).hex()
        if final is None or not any(
            found.intent.commitment == sealed and found.index < final for found in announced.intents
        ):
            raise CommandError(
                "the answer was not committed to before the final record: whoever shows it may "
                "have made it up"
            )
        transcript = read_closed_run(log, answer.run, run)
        receipts = _receipts(log, transcript.final_record)
    opened = _opened(salts)
    return tuple(
        _try(receipt, receipts, transcript, answer, opened.get(receipt.record))
        for receipt in receipts
    )


def _receipts(log: LocalLog, final: str) -> list[_Receipt]:
    found: list[_Receipt] = []
    for index, envelope in enumerate(log.entries(0, log.size)):
        statement = decode_statement(envelope.payload)
        if isinstance(statement, Audit) and statement.final == final:
            record, keyid = envelope.record_hash().hex(), envelope.signatures[0].keyid
            found.append(_Receipt(index, record, keyid, statement))
    return found


def _try(
    receipt: _Receipt,
    receipts: Sequence[_Receipt],
    transcript: Transcript,
    answer: Answer,
    salts: Mapping[str, Any] | None,
) -> Tried:
    audit = receipt.audit

    def tried(finding: Finding, words: str, hits: tuple[int, ...] = ()) -> Tried:
        return Tried(receipt.index, audit.auditor, hits, finding, words)

    if first := _copied_from(receipt, receipts):
        words = f"its own gradients are those of {first.audit.auditor} (index {first.index})"
        return tried("copied", words)
    if audit.steps and audit.gradient_roots == _EMPTY:
        return tried("lazy", "it computed no gradient of its own")
    hits = _hits(audit, transcript, answer)
    if salts is not None and (words := _falsely_opened(audit, transcript, salts, hits or ())):
        return tried("lazy", words, hits or ())
    if hits is None:
        return tried("not known", "its steps were chosen by hand")
    if not hits:
        return tried("not hit", "its sample holds no faulty step")
    # Each faulty step in the sample is one that cannot have passed, whatever the auditor runs on.
    most = audit.steps + audit.counts.withheld - len(hits)
    if audit.counts.pass_ > most:
        steps = ", ".join(f"{step:,}" for step in hits)
        return tried("lazy", f"it passed {audit.counts.pass_:,} steps of a sample that holds the "
                     f"faulty {steps}", hits)  # fmt: skip
    return tried("found", f"{audit.counts.refuted:,} steps refuted", hits)


def _copied_from(receipt: _Receipt, receipts: Sequence[_Receipt]) -> _Receipt | None:
    """Return the earlier receipt of another key under whose salts the same gradients lie."""
    if receipt.audit.gradient_roots == _EMPTY:
        return None
    return next(
        (
            other
            for other in receipts
            if other.index < receipt.index
            and other.keyid != receipt.keyid
            and other.audit.gradient_roots == receipt.audit.gradient_roots
        ),
        None,
    )


def _hits(audit: Audit, transcript: Transcript, answer: Answer) -> tuple[int, ...] | None:
    """Return the faulty steps that a receipt's sample holds; None where it was chosen."""
    if audit.sample == "chosen":
        return None
    total = transcript.final.steps
    nonces = {source.keyid: bytes.fromhex(source.nonce) for source in audit.sources}
    run, final = bytes.fromhex(transcript.run), bytes.fromhex(transcript.final_record)
    drawn = sample_steps(run, final, nonces, total, audit.k)
    sample = {*drawn, total, *transcript.line.overlapped().values()}
    return tuple(step for step in answer.faults if step in sample)


def _opened(salts: Sequence[Path]) -> dict[str, Mapping[str, Any]]:
    """Read files of salts, by the receipt that each says it opens."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in salts:
        try:
            told = json.loads(path.read_bytes())
            found[str(told["receipt"])] = told
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandError(f"{path}: holds no salts of a receipt ({error})") from None
    return found


def _falsely_opened(
    audit: Audit, transcript: Transcript, salts: Mapping[str, Any], hits: Sequence[int]
) -> str:
    """Say what is wrong with the gradients that an auditor shows as his own; "" if nothing."""
    try:
        own = {int(g["step"]): str(g["gradientRoot"]) for g in salts["gradients"]}
        drawn = {int(g["step"]): bytes.fromhex(g["salt"]) for g in salts["gradients"]}
        root = opened_root(own, drawn).hex()
    except (KeyError, TypeError, ValueError):
        return "its salts are no list of steps, salts and gradient roots"
    if root != audit.gradient_roots:
        return "its salts do not open its gradient roots"
    for step in hits:
        if own.get(step) == transcript.line.rows[step - 1].row.gradient_root:
            return f"its own gradient of the faulty step {step:,} is the one that the row states"
    return ""
