"""Writes what an audit found as the statement that its auditor signs."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from anh_jax.audit.findings import Findings
from anh_jax.audit.results import (
    StepResult,
    count,
    draw_salts,
    results_root,
    salted_root,
    worst,
)
from anh_jax.audit.sampling import Sample
from anh_jax.audit.transcript import Transcript
from anh_jax.environment import environment
from attest import canonical
from attest.canonical import hex_float
from attest.statements import Audit, Counts, Worst

Method = Literal["exact", "bounded"]


@dataclass(frozen=True)
class Receipt:
    """The statement, and the salts (by step) that open its commitment to own gradient roots."""

    audit: Audit
    salts: Mapping[int, bytes]


def write_receipt(
    findings: Findings,
    transcript: Transcript,
    sample: Sample,
    *,
    auditor: str,
    method: Method,
    own_class: Mapping[str, str],
) -> Receipt:
    """Sum up an audit by an operator called `auditor`.

    `own_class` is the execution class that the steps were recomputed on.
    """
    results = findings.results
    counts = count(results)
    salts = draw_salts(results)
    audit = Audit(
        final=transcript.final_record,
        run=transcript.run,
        auditor=auditor,
        sample=sample.kind,
        sources=sample.sources,
        k=sample.k,
        steps=len(results) - counts["withheld"],
        method=method,
        results_root=results_root(results).hex(),
        counts=Counts(
            pass_=counts["pass"],
            refuted=counts["refuted"],
            unattestable=counts["unattestable"],
            withheld=counts["withheld"],
        ),
        worst=_worst(results),
        init=findings.init.verdict,
        export=findings.export.verdict,
        line=findings.line.verdict,
        walk=findings.walk.verdict,
        drift=findings.drift.verdict,
        gradient_roots=salted_root(results, salts).hex(),
        environment={
            **environment(),
            **{f"class.{name}": value for name, value in own_class.items()},
        },
    )
    return Receipt(audit, salts)


def results_document(receipt: Receipt, findings: Findings, *, record: str) -> bytes:
    """Return the canonical JSON kept beside a receipt (its record hash, hex).

    `results` holds one object for each step: its canonical bytes are the leaf under the receipt's
    results root, by step. `spreadSeed` is what rounding was estimated with, 16 hex digits: with it
    the checks can be repeated.
    """
    checks = {name: getattr(findings, name) for name in ("init", "export", "line", "walk")}
    return canonical.encode(
        {
            "version": 1,
            "receipt": record,
            "run": receipt.audit.run,
            "final": receipt.audit.final,
            "resultsRoot": receipt.audit.results_root,
            "results": [result.document() for result in sorted(findings.results, key=_step)],
            "checks": {
                name: {"verdict": check.verdict, "words": check.words}
                for name, check in checks.items()
            },
            "spreadSeed": f"{findings.spread_seed:016x}",
            "milliseconds": round(1e3 * findings.seconds),
        }
    )


def salts_document(receipt: Receipt, findings: Findings, *, record: str) -> bytes:
    """Return the canonical JSON that opens a receipt's commitment to own gradient roots.

    The auditor keeps it: whoever has it could pass the roots off as computed by himself.
    """
    own = {result.step: result.gradient_root for result in findings.results}
    return canonical.encode(
        {
            "version": 1,
            "receipt": record,
            "gradients": [
                {"step": step, "salt": salt.hex(), "gradientRoot": own[step]}
                for step, salt in sorted(receipt.salts.items())
            ],
        }
    )


def new_nonce() -> bytes:
    """Return a fresh nonce of 32 bytes for an intent."""
    return secrets.token_bytes(32)


def _worst(results: Sequence[StepResult]) -> Worst:
    return Worst(
        a=_text(worst([result.a for result in results])),
        a_row=_text(worst([result.a_row for result in results])),
        zeros=_text(worst([result.zeros for result in results])),
        a2=_text(worst([result.a2 for result in results])),
        b=_text(worst([result.b for result in results])),
        walk=_text(worst([result.walk for result in results])),
    )


def _text(value: float | None) -> str | None:
    return None if value is None else hex_float(value)


def _step(result: object) -> int:
    return getattr(result, "step", 0)
