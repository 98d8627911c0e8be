"""Read an export with a library that is not ours: `python read_export.py TOOL`, JSON on stdin.

Prints `accepted`, `refused: WHY`, or `absent: MODULE`. Imports nothing of ours.
"""

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path


def dsse(claim: dict[str, str]) -> None:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    public = bytes.fromhex(claim["public"])
    key = SSlibKey(claim["keyid"], "ed25519", "ed25519", {"public": public.hex()})
    for line in base64.b64decode(claim["data"]).splitlines():
        Envelope.from_dict(json.loads(line)).verify([key], 1)


def statement(claim: dict[str, str]) -> None:
    import in_toto_attestation.v1.statement_pb2 as pb
    from google.protobuf.json_format import Parse
    from in_toto_attestation.v1.statement import Statement

    for line in base64.b64decode(claim["data"]).splitlines():
        payload = base64.b64decode(json.loads(line)["payload"])
        Statement.copy_from_pb(Parse(payload, pb.Statement())).validate()


def cose(claim: dict[str, str]) -> None:
    from scitt_cose import parse_signed_statement, verify_receipt

    pem, leaf = claim["pem"].encode(), base64.b64decode(claim["leaf"])
    found = verify_receipt(
        base64.b64decode(claim["data"]), leaf_entry_hex=leaf.hex(), log_public_key_pem=pem
    )
    if not found.ok:
        raise ValueError(f"receipt: {found.errors}")
    said = parse_signed_statement(base64.b64decode(claim["statement"]), public_key_pem=pem)
    if said["signature_verified"] is not True:
        raise ValueError("statement: not verified")


def spelling(claim: dict[str, str]) -> None:
    """Decode CBOR and write it again: one spelling gives the same bytes."""
    import cbor2

    data = base64.b64decode(claim["data"])
    outer = cbor2.loads(data)
    inner = cbor2.loads(outer.value[0])
    again = cbor2.dumps(outer, canonical=True), cbor2.dumps(inner, canonical=True)
    if again != (data, outer.value[0]):
        raise ValueError("another spelling")


def model(claim: dict[str, str]) -> None:
    from model_signing import hashing, verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=Path(claim["key"]))
    config = config.set_hashing_config(hashing.Config().use_file_serialization())
    config.verify(Path(claim["model"]), Path(claim["signature"]))


def note(claim: dict[str, str]) -> None:
    """Take a .tlog-proof apart by its specification and check each part with aics-tlog."""
    import aics_tlog

    head, _, checkpoint = base64.b64decode(claim["data"]).partition(b"\n\n")
    magic, extra, index, *path = head.decode().split("\n")
    signed = aics_tlog.parse_note(checkpoint)
    keys = aics_tlog.parse_vkey(claim["log"]), [aics_tlog.parse_vkey(claim["witness"])]
    result = aics_tlog.verify_checkpoint(signed, *keys, 1)
    if magic != "c2sp.org/tlog-proof@v1" or not result.ok:
        raise ValueError(f"checkpoint: {result.error}")
    leaf = base64.b64decode(extra.removeprefix("extra "))
    place = int(index.removeprefix("index "))
    hashes = [base64.b64decode(line) for line in path]
    if not aics_tlog.verify_leaf_inclusion(leaf, place, result.size, hashes, result.root):
        raise ValueError("inclusion does not hold")


TOOLS: dict[str, Callable[[dict[str, str]], None]] = {
    "dsse": dsse,
    "statement": statement,
    "cose": cose,
    "spelling": spelling,
    "model": model,
    "note": note,
}

if __name__ == "__main__":
    try:
        TOOLS[sys.argv[1]](json.load(sys.stdin))
    except ImportError as error:
        print(f"absent: {error.name}")
    except Exception as error:
        print(f"refused: {type(error).__name__}: {error}")
    else:
        print("accepted")
