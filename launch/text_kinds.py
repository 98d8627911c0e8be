"""The text files that `anh inspect` knows: log checkpoints, vkeys, policies, configs, keys."""

import re
from pathlib import Path

from attest.tlog_proof import HEAD
from launch.description import Description, unknown


def describe_text(path: Path, data: bytes) -> Description:
    """Recognise a file that is text but not JSON."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise unknown(path) from None
    if data.startswith(HEAD):
        return _tlog_proof(data)
    if "\n\n\N{EM DASH} " in text:
        return _log_checkpoint(data)
    if text.count("+") >= 2 and len(text.strip().split()) == 1:
        return _vkey(text.strip())
    if path.suffix == ".toml":
        return _policy(path)
    if path.name == "config.yaml":
        groups = re.findall(r"^([a-z_]+):", text, re.MULTILINE)
        return Description("resolved configuration", [("groups", ", ".join(groups) or "none")])
    raise unknown(path)


def _tlog_proof(data: bytes) -> Description:
    from attest.checkpoint import Checkpoint
    from attest.envelope import Envelope
    from attest.note import Note
    from attest.proof import ProofRecord
    from attest.tlog_proof import TlogProof

    proof = TlogProof.from_bytes(data)
    head = Checkpoint.from_text(Note.from_bytes(proof.note).text)
    facts = [("index", str(proof.index)), ("log", f"{head.origin}, {head.size} entries")]
    if proof.extra is not None:
        record = ProofRecord.read(proof.index, Envelope.from_bytes(proof.extra))
        facts += [("record", record.hash), ("kind", record.statement.KIND)]
    return Description("proof of one record", facts, ["'anh verify FILE --policy P' checks it"])


def _log_checkpoint(data: bytes) -> Description:
    from attest.checkpoint import Checkpoint
    from attest.note import Note

    note = Note.from_bytes(data)
    head = Checkpoint.from_text(note.text)
    facts = [("origin", head.origin), ("size", str(head.size)), ("root", head.root.hex())]
    facts += [("signed by", f"{s.signer.name}+{s.signer.key_hash.hex()}") for s in note.signatures]
    return Description("log checkpoint", facts)


def _vkey(text: str) -> Description:
    from attest.keys import ALG_COSIGNATURE, VerifierKey

    key = VerifierKey.from_text(text)
    use = "cosigning (witness)" if key.algorithm == ALG_COSIGNATURE else "signing"
    facts = [("name", key.name), ("algorithm", f"{key.algorithm:#04x}, {use}")]
    return Description("public key (vkey)", [*facts, ("public", key.public.hex())])


def _policy(path: Path) -> Description:
    from attest.policy import load_policy

    policy = load_policy(path)
    facts = [("log", f"{policy.log.origin} ({policy.log.operator})")]
    facts += [("required", policy.require.level.text)]
    return Description("policy", facts, ["'anh policy show FILE' prints all of it"])


def describe_private_key(path: Path) -> Description:
    """Show the public half of a private key file."""
    from attest.keys import PrivateKey

    key = PrivateKey.load(path)
    facts = [("public", key.public.hex()), ("keyid", key.keyid)]
    return Description("private key", facts, ["keep it to yourself: whoever has it signs as you"])
