"""What `anh verify` says of evidence about states: signed otherwise, or withheld."""

import re
import time
from typing import Any

from attest.errors import AttestError
from attest.keys import Role, keyid
from attest.state_evidence import (
    EQUIVOCATION_KIND,
    WITHHELD_KIND,
    WithheldReport,
    check_state_equivocation,
    check_withheld,
)
from attest.trust import Policy
from launch.errors import CommandError, ExitCode
from launch.output import Tone, printable, table, toned
from launch.refuting import Answer

_KIND = re.compile(f'^{{.*"kind":"({EQUIVOCATION_KIND}|{WITHHELD_KIND})"'.encode(), re.DOTALL)
_SHOWN = 12


def check_state_evidence(data: bytes, policy: Policy | None) -> Answer:
    """Check evidence about states: 3 for two stories of the run key, 1 for states withheld.

    Raises CommandError, exit code 2, for a file that shows nothing.
    """
    match = _KIND.match(data)
    try:
        if match is not None and match[1] == EQUIVOCATION_KIND.encode():
            return _equivocation(data)
        return _withheld(data, policy)
    except AttestError as error:
        raise CommandError(f"no evidence: {error}") from error


def _equivocation(data: bytes) -> Answer:
    claim = check_state_equivocation(data)
    words = f"the run key signed another digest for {claim.part} {claim.step} than its row commits"
    facts = [("run", claim.run), ("row", claim.row), ("signed", claim.root)]
    document: dict[str, Any] = {
        "kind": EQUIVOCATION_KIND,
        "words": words,
        **claim.fields(),
        "exitCode": int(ExitCode.EQUIVOCATION),
    }
    lines = [toned(f"TWO STORIES: {words}", Tone.BAD), *table(facts)]
    return Answer(document, lines, ExitCode.EQUIVOCATION)


def _withheld(data: bytes, policy: Policy | None) -> Answer:
    signed = check_withheld(data)
    report = signed.report
    if policy is None:
        raise CommandError("withheld states are an auditor's word: --policy P says whose key it is")
    entry = policy.find(keyid(signed.key), Role.AUDITOR)
    if entry is None or entry.operator != report.auditor:
        raise CommandError(
            f"no evidence: the policy names no key {signed.key.hex()} of auditor {report.auditor}"
        )
    count = len(report.trees)
    things = f"{count:,} things" if count > 1 else "one thing"
    were = "were" if count > 1 else "was"
    words = f"{report.auditor} says that {things} it asked for {were} not shown"
    document: dict[str, Any] = {
        "kind": WITHHELD_KIND,
        "words": words,
        "run": report.run,
        "auditor": report.auditor,
        "withheld": [tree.words for tree in report.trees],
        "exitCode": int(ExitCode.FAILED),
    }
    lines = [toned(printable(f"WITHHELD: {words}"), Tone.BAD), *table(_facts(report))]
    return Answer(document, lines, ExitCode.FAILED)


def _facts(report: WithheldReport) -> list[tuple[str, str]]:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(report.at))
    facts = [("run", report.run), ("asked", printable(f"{report.source} at {at}"))]
    facts += [("withheld", printable(tree.words)) for tree in report.trees[:_SHOWN]]
    if len(report.trees) > _SHOWN:
        facts.append(("", f"... and {len(report.trees) - _SHOWN:,} more"))
    return facts
