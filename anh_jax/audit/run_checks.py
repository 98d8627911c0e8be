"""Checks of a run as a whole: its line, state 0, exported files, and walk."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from anh_jax.attested_run import commit_line
from anh_jax.audit.results import Check, StepResult
from anh_jax.audit.transcript import Transcript
from anh_jax.bounds.walk import PairwiseCosine
from anh_jax.export_weights import FILE_NAME, exported_bytes
from anh_jax.program.init_check import InitKind
from anh_jax.stated_class import ClassMatch


def check_line(transcript: Transcript, *, steps: int) -> Check:
    """Check that the rows lead from the final record to genesis and are those it commits."""
    line, final = transcript.line, transcript.final
    if transcript.missing:
        return Check("not checked", transcript.missing)
    if transcript.fault:
        return Check("fail", transcript.fault)
    if len(line.rows) != steps or final.line.count != steps + 1:
        words = f"{len(line.rows)} rows and {final.line.count} committed, {steps} steps promised"
        return Check("fail", words)
    committed = commit_line(line)
    if committed.root != final.line.root:
        return Check("fail", "the rows are not those that the final record commits: another root")
    if line.rows[-1].row.state_root != final.state_root:
        return Check("fail", "the final record names another state than the last row")
    beside = f", {len(line.stale)} beside it" if line.stale else ""
    return Check("pass", f"{committed.count} rows lead to genesis under {committed.root[:16]}"
                 f"{beside}")  # fmt: skip


def check_init(root: str, transcript: Transcript, kind: InitKind, match: ClassMatch) -> Check:
    """Compare state 0 as drawn here (its digest, hex) with the one that genesis commits.

    Where every operator of init is exact, or genesis says so, the bits must be equal on any
    machine; else only on the run's own execution class.
    """
    committed = transcript.genesis.state_root
    if root == committed:
        return Check("pass", f"state 0 is {root[:16]}")
    words = f"state 0 is {root[:16]} by the contract's init, genesis commits {committed[:16]}"
    if "exact" in (kind, transcript.genesis.init) or match.comparable:
        return Check("fail", words)
    return Check("not checked", f"{words}; {match.obstacle}")


def check_walk(residuals: PairwiseCosine, results: Sequence[StepResult]) -> Check:
    """Check that what is left of the updates after check B does not point one way at every step.

    An update that left nothing, bit for bit, leans nowhere.
    """
    if sum(result.walk is not None for result in results) < 2:  # noqa: PLR2004
        return Check("not checked", "fewer than two updates were weighed element by element")
    if not residuals.allowed() < 1:
        # Whoever walks with a few elements would pass whatever they do.
        words = f"the residuals of {residuals.steps} updates have too few elements to show a walk"
        return Check("not checked", words)
    found = residuals.statistic()
    words = f"mean cosine {residuals.mean():.2g} between the residuals of {residuals.steps} updates"
    return Check("pass" if found.accepted else "fail", words)


def check_export(
    parameters: Mapping[str, Any] | None, transcript: Transcript, *, missing: str = ""
) -> Check:
    """Export the parameters of the verified final state and compare with what `final` names.

    `missing` says why that state is not at hand, where `parameters` is None.
    """
    files = {file.name: file.sha256 for file in transcript.final.files}
    if parameters is None:
        why = f": {missing}" if missing else ""
        return Check("not checked", f"the final state could not be produced{why}")
    if not files:
        return Check("not checked", "the final record names no exported file")
    if other := sorted(files.keys() - {FILE_NAME}):
        return Check("fail", f"{other[0]}: no file that the export rule makes")
    digest = hashlib.sha256(exported_bytes(parameters)).hexdigest()
    if files[FILE_NAME] != digest:
        return Check(
            "fail",
            f"{FILE_NAME}: {digest[:16]} from the final state, final names {files[FILE_NAME][:16]}",
        )
    return Check("pass", f"{FILE_NAME} is {digest[:16]}")
