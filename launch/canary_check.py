"""Holds the receipts of a canary run against its answer: who passed a step that cannot pass."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anh_jax.attested_run import run_id
from anh_jax.audit.results import opened_root
from anh_jax.audit.transcript import Transcript
from anh_jax.run_directory import RunDirectory
from attest.canary import CanaryAnswer, SeenReceipt, Tried, drawn_faults, try_receipt
from attest.log.sequencer import LocalLog
from attest.statements import Audit, decode_statement
from launch.errors import CommandError
from launch.logged_run import read_announced, read_closed_run


def check(directory: Path, answer: CanaryAnswer, salts: Sequence[Path]) -> tuple[Tried, ...]:
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
        if final is None or not answer.committed(
            found.intent for found in announced.intents if found.index < final
        ):
            raise CommandError(
                "the answer was not committed to before the final record: whoever shows it may "
                "have made it up"
            )
        transcript = read_closed_run(log, answer.run, run)
        receipts = _receipts(log, transcript.final_record)
    opened = _opened(salts)
    found: list[Tried] = []
    for receipt in receipts:
        total, added = transcript.final.steps, transcript.line.overlapped().values()
        hits = drawn_faults(receipt.audit, answer, total, added)
        shown, wrong = opened.get(receipt.record), ""
        if shown is not None:
            wrong = _falsely_opened(receipt.audit, transcript, shown, hits or ())
        found.append(try_receipt(receipt, receipts, hits, falsely_opened=wrong))
    return tuple(found)


def _receipts(log: LocalLog, final: str) -> list[SeenReceipt]:
    found: list[SeenReceipt] = []
    for index, envelope in enumerate(log.entries(0, log.size)):
        statement = decode_statement(envelope.payload)
        if isinstance(statement, Audit) and statement.final == final:
            record, keyid = envelope.record_hash().hex(), envelope.signatures[0].keyid
            found.append(SeenReceipt(index, record, keyid, statement))
    return found


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
