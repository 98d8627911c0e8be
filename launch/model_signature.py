"""OMS `model.sig`: weights signed with a P-256 key, as the tools of model releases read it.

Source: OpenSSF Model Signing v1.0 (predicate `https://model_signing/signature/v1.0`): an in-toto
Statement over the files' digests in a DSSE envelope in a sigstore bundle. It takes no Ed25519, so
the key is one of its own kind; the `release` extra brings what signs with it.
"""

import base64
import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attest.durable_file import replace_file
from attest.envelope import PAYLOAD_TYPE, pae
from attest.exports import bundle_bytes
from attest.statements import Final
from launch.errors import CommandError
from launch.key_home import key_path

_PREDICATE = "https://model_signing/signature/v1.0"


def release_key(name: str) -> ec.EllipticCurvePrivateKey:
    """Load the P-256 key `name` of the key home, made first if there is none.

    The public half lies beside it as `NAME.pub.pem`: that is what a release publishes.

    Raises CommandError for a file that is no such key.
    """
    path = key_path(f"{name}.p256.pem")
    if not path.exists():
        return _new_key(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        raise CommandError(f"{path}: is no unencrypted PEM key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise CommandError(f"{path}: is no P-256 key")
    return key


def public_half(name: str) -> Path:
    """Return where the public half of the key `name` lies."""
    return key_path(f"{name}.p256.pub.pem")


def model_signature(final: Final, key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """Sign the exported files that a final record names, as the model `name`.

    That a folder holds these files is for the caller to check.
    """
    resources = [
        {"algorithm": "sha256", "digest": file.sha256, "name": file.name} for file in final.files
    ]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicate": {
            "resources": resources,
            "serialization": {
                "allow_symlinks": False,
                "hash_type": "sha256",
                "ignore_paths": [],
                "method": "files",
            },
        },
        "predicateType": _PREDICATE,
        "subject": [{"digest": {"sha256": _root(resources)}, "name": name}],
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    public = _public_pem(key)
    signature = key.sign(pae(payload), ec.ECDSA(hashes.SHA256()))
    envelope: dict[str, object] = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode()}],
    }
    return bundle_bytes(envelope, hashlib.sha256(public).hexdigest())


def _new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(private)
    replace_file(path.with_name(path.name.replace(".p256.pem", ".p256.pub.pem")), _public_pem(key))
    return key


def _public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _root(resources: list[dict[str, str]]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
