"""A record as other tools read it: in-toto and sigstore bundles around its own signatures.

Sources: in-toto attestation bundle (JSON lines of DSSE envelopes), sigstore bundle v0.3.
"""

import base64
import json
from collections.abc import Iterable, Mapping

from attest.envelope import PAYLOAD_TYPE, Envelope
from attest.errors import InputError

__all__ = ["SIGSTORE_MEDIA_TYPE", "intoto_bundle", "sigstore_bundle"]

SIGSTORE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def intoto_bundle(envelopes: Iterable[Envelope]) -> bytes:
    """Write one DSSE envelope a line: the log's leaves as they are."""
    return b"".join(envelope.to_bytes() + b"\n" for envelope in envelopes)


def sigstore_bundle(envelope: Envelope) -> bytes:
    """Write a bundle around a record's one signature; its key is named by a hint, the keyid.

    It holds neither certificate, time nor log entry: whoever verifies brings the key, and learns
    that the key signed, no more.

    Raises:
        InputError: for a record that several keys signed; a bundle has room for one signature.
    """
    if len(envelope.signatures) != 1:
        raise InputError(
            f"the record has {len(envelope.signatures)} signatures, a sigstore bundle holds one; "
            "export it --to intoto"
        )
    (signature,) = envelope.signatures
    signed = {
        "payload": base64.b64encode(envelope.payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": signature.keyid, "sig": base64.b64encode(signature.sig).decode()}],
    }
    return bundle_bytes(signed, signature.keyid)


def bundle_bytes(envelope: Mapping[str, object], hint: str) -> bytes:
    """Write a sigstore bundle of a DSSE envelope whose key the reader finds by a hint."""
    bundle = {
        "dsseEnvelope": envelope,
        "mediaType": SIGSTORE_MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
    }
    return json.dumps(bundle, sort_keys=True, separators=(",", ":")).encode()
