"""On which nonces an audit's sample rests: the auditor's own intent, or those that a policy names.

The protocol leaves no choice here: each source counts with its key's first intent before the final
record, and a source that is named must have revealed. A choice among intents would be a choice of
the sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from attest.keys import Role
from attest.log.run_log import RunLog
from attest.sample import commitment
from attest.statements import Nonce, Source
from attest.trust import Policy
from launch.auditor_home import audits_folder, find_nonce
from launch.auditor_name import AuditorName
from launch.errors import CommandError
from launch.logged_run import Announced, LoggedIntent
from launch.revelation import keep_revelation


@dataclass(frozen=True, slots=True)
class _Revealing:
    """The auditor's own intent and its nonce."""

    intent: LoggedIntent
    nonce: bytes


def find_sources(
    log: RunLog, announced: Announced, who: AuditorName, policy: Policy | None
) -> tuple[Source, ...]:
    """Return the sources of a drawn sample; none where the auditor announced nothing himself.

    Where other sources of the policy have not revealed yet, the auditor's own nonce is logged for
    them. Raises CommandError then, and where a source announced nothing before the final record;
    EquivocationError where the own nonce is revealed for another final record already.
    """
    wanted = {who.key.keyid} if policy is None else policy.sample_sources(who.key.keyid)
    own = announced.first_by(who.key.keyid)
    if own is None and wanted == {who.key.keyid}:
        return ()
    intents = [_intent(announced, keyid, policy) for keyid in sorted(wanted)]
    revealing = None if own is None else _Revealing(own, _own_nonce(own, log, announced))
    sources: list[Source] = []
    waiting: list[LoggedIntent] = []
    for found in intents:
        nonce = announced.nonces.get(found.record)
        if revealing is not None and found.record == revealing.intent.record:
            nonce = revealing.nonce.hex()
        if nonce is None:
            waiting.append(found)
        else:
            sources.append(Source(intent=found.record, keyid=found.keyid, nonce=nonce))
    if waiting:
        _reveal(log, announced, who, revealing)
        names = ", ".join(sorted({found.intent.auditor for found in waiting}))
        raise CommandError(
            f"the sample also rests on {names}, who has not revealed a nonce yet; yours is in the "
            "log now: run the same command again once theirs is"
        )
    return tuple(sources)


def _intent(announced: Announced, keyid: str, policy: Policy | None) -> LoggedIntent:
    found = announced.first_by(keyid)
    if found is not None:
        return found
    entry = None if policy is None else policy.find(keyid, Role.AUDITOR)
    name = keyid[:16] if entry is None else entry.operator
    raise CommandError(
        f"the policy draws samples from {name}, who announced no audit before the final record; no "
        "sample of this run can count under it"
    )


def _own_nonce(own: LoggedIntent, log: RunLog, announced: Announced) -> bytes:
    """Return the nonce, which from now on is for the log's final record and for no other."""
    nonce = find_nonce(own.record)
    if nonce is None or commitment(nonce).hex() != own.intent.commitment:
        raise CommandError(
            f"{audits_folder()}: does not hold the nonce of your intent at index {own.index}; "
            "bring it from where you announced it, or name steps with --steps"
        )
    if announced.final_index is None:
        raise CommandError("the log holds no final record of the run; its last step comes first")
    keep_revelation(own.record, log.entry(announced.final_index))
    return nonce


def _reveal(log: RunLog, announced: Announced, who: AuditorName, own: _Revealing | None) -> None:
    if own is None or own.intent.record in announced.nonces:
        return
    statement = Nonce(intent=own.intent.record, nonce=own.nonce.hex())
    log.append([who.sign(statement)], keys=[who.key.public])


def operators_of(sources: Sequence[Source], announced: Announced) -> tuple[str, ...]:
    """Return the operators whose nonces a sample rests on, sorted."""
    names = {found.record: found.intent.auditor for found in announced.intents}
    return tuple(sorted({names[source.intent] for source in sources}))
