"""COSE for a record: a receipt (RFC 9942, RFC 9162 tree) and a signed statement (RFC 9943).

Only what is written here is CBOR, and each item has one spelling: definite lengths, the shortest
heads, map keys sorted by their bytes (RFC 8949 section 4.2.1).

    receipt    18([<< {1: -8, 4: keyid, 15: {1: issuer, 2: record}, 395: 1} >>,
                   {396: {-1: [<< [size, index, [path...]] >>]}}, nil, signature])
    statement  18([<< {1: -8, 3: "application/vnd.in-toto+dsse", 4: keyid,
                       15: {1: issuer, 2: record}} >>, {}, leaf, signature])

A receipt is signed over the tree's root by a key of its own, for the log signs checkpoints only:
it is the word of that key's holder that a cosigned checkpoint had this root.
"""

from collections.abc import Mapping, Sequence

from attest.keys import PrivateKey
from attest.proof import ProofRecord
from attest.tlog_proof import TlogProof

__all__ = ["STATEMENT_TYPE", "receipt", "signed_statement"]

STATEMENT_TYPE = "application/vnd.in-toto+dsse"
_SIGN1 = 18
_ALG, _CONTENT_TYPE, _KID, _CLAIMS, _VDS, _PROOFS = 1, 3, 4, 15, 395, 396
_EDDSA, _RFC9162, _INCLUSION = -8, 1, -1
_ISSUER, _SUBJECT = 1, 2

Item = int | bytes | str | None | Sequence["Item"] | Mapping[int, "Item"]


def receipt(record: ProofRecord, proof: TlogProof, key: PrivateKey, issuer: str) -> bytes:
    """Write a receipt for a record's leaf under the root of the proof's checkpoint.

    Raises:
        RefusedError: if the path does not lead from the leaf to that root.
    """
    head = proof.verify(record.envelope.to_bytes())
    protected = _encode({**_named(record, key, issuer), _VDS: _RFC9162})
    path = _encode([head.size, proof.index, list(proof.path)])
    return _sign1(protected, {_PROOFS: {_INCLUSION: [path]}}, None, head.root, key)


def signed_statement(record: ProofRecord, key: PrivateKey, issuer: str) -> bytes:
    """Write a statement whose payload is the record's leaf, signatures and all."""
    leaf = record.envelope.to_bytes()
    protected = _encode({**_named(record, key, issuer), _CONTENT_TYPE: STATEMENT_TYPE})
    return _sign1(protected, {}, leaf, leaf, key)


def _named(record: ProofRecord, key: PrivateKey, issuer: str) -> dict[int, Item]:
    claims: dict[int, Item] = {_ISSUER: issuer, _SUBJECT: f"anh-record:{record.hash}"}
    return {_ALG: _EDDSA, _KID: bytes.fromhex(key.keyid), _CLAIMS: claims}


def _sign1(
    protected: bytes, unprotected: Item, payload: bytes | None, signed: bytes, key: PrivateKey
) -> bytes:
    # RFC 9052 section 4.4; no external data.
    signature = key.sign(_encode(["Signature1", protected, b"", signed]))
    return _head(6, _SIGN1) + _encode([protected, unprotected, payload, signature])


def _encode(value: Item) -> bytes:
    """Write one item (RFC 8949 section 3)."""
    match value:
        case None:
            return b"\xf6"
        case int():
            return _head(0, value) if value >= 0 else _head(1, -1 - value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            text = value.encode()
            return _head(3, len(text)) + text
        case Mapping():
            pairs = sorted((_encode(name), _encode(item)) for name, item in value.items())
            return _head(5, len(pairs)) + b"".join(name + item for name, item in pairs)
        case _:
            return _head(4, len(value)) + b"".join(_encode(item) for item in value)


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for code, width in ((24, 1), (25, 2), (26, 4)):
        if argument < 1 << (8 * width):
            return bytes([major << 5 | code]) + argument.to_bytes(width, "big")
    return bytes([major << 5 | 27]) + argument.to_bytes(8, "big")
