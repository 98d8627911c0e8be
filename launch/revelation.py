"""For which final record an auditor's nonce is revealed: one, for ever.

Who knows a nonce can compute the sample it draws. A trainer who gets a receipt for one final record
and then shows a second, fitted to that sample, has told two stories, and the auditor holds both.
"""

import base64
from pathlib import Path

from attest import canonical
from attest.durable_file import make_directory, read_file, replace_file
from attest.envelope import Envelope
from attest.errors import EquivocationError
from attest.file_lock import locked
from launch.auditor_home import audits_folder

_MAX_BYTES = 1 << 16


def keep_revelation(intent: str, final: Envelope) -> Path:
    """Keep durably, before it is revealed, which final record an intent's nonce is revealed for.

    `intent` is a record hash in hex. The file, beside the nonce, is the final record's envelope.
    Raises EquivocationError where it is another final record's already; both envelopes are in the
    evidence file then.
    """
    folder = audits_folder()
    make_directory(folder)
    path = folder / f"{intent}.final.json"
    with locked(folder / f"{intent}.lock"):
        if path.exists():
            _check_same(intent, Envelope.from_bytes(read_file(path, _MAX_BYTES)), final)
        else:
            replace_file(path, final.to_bytes())
            path.chmod(0o600)
    return path


def _check_same(intent: str, first: Envelope, second: Envelope) -> None:
    if first.record_hash() == second.record_hash():
        return
    path = audits_folder() / f"{intent}.two-finals.json"
    document: dict[str, canonical.JSON] = {
        "first": base64.b64encode(first.to_bytes()).decode(),
        "intent": intent,
        "kind": "final equivocation",
        "second": base64.b64encode(second.to_bytes()).decode(),
        "version": 1,
    }
    replace_file(path, canonical.encode(document))
    raise EquivocationError(
        f"your nonce of intent {intent[:16]} is revealed for final record "
        f"{first.record_hash().hex()}, and this log shows {second.record_hash().hex()}: sign "
        f"nothing; both are in {path}",
        evidence=path,
    )
