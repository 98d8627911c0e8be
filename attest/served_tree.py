"""What a trainer shows of one committed tree: its tensors and the roots of their tiles, signed.

    {"alg", "format": "anh served tree v1", "part": "state" or "gradient", "row", "run", "step",
     "structure": hex, "tensors": [{"header": hex, "top": hex}, ... sorted by path bytes]}

A manifest whose root is the committed digest is the committed tree's own: every tile of it can be
checked against `top` by itself. What the run key signs is a claim: this part of what this row
commits has this root. A claim under another digest than the row's contradicts the run; a manifest
without a signature shows nothing about anybody. The row is named because a stale branch may hold
another one for the same step.

The signature is Ed25519 over `"anh v1 served tree" || 0x00 || canonical JSON of the claim`.
"""

from dataclasses import dataclass
from typing import cast

from attest import canonical
from attest.digest_tree import (
    ALGORITHMS,
    MAX_STEP,
    DigestLevel,
    LevelHash,
    encode_path,
    set_root,
    state_bytes,
    tensor_bytes,
)
from attest.errors import FormatError
from attest.keys import SIGNATURE_BYTES, PrivateKey, verify_signature
from attest.tensor_header import TensorHeader

FORMAT = "anh served tree v1"
PARTS = ("state", "gradient")
# Two hundred bytes a tensor: a tree of three hundred thousand tensors.
MAX_BYTES = 64 << 20
_FIELDS = frozenset(("alg", "format", "part", "row", "run", "step", "structure", "tensors"))
_CLAIM_FIELDS = frozenset(("part", "root", "row", "run", "step"))
_DOMAIN = b"anh v1 served tree\x00"


@dataclass(frozen=True, slots=True)
class TreeClaim:
    """Say that a part of what a row commits has a root; all but part and step are 64 hex digits.

    `row` is the row's hash; of state 0, which genesis commits, the run id.
    """

    run: str
    row: str
    part: str
    step: int
    root: str

    def fields(self) -> dict[str, canonical.JSON]:
        """Return the claim as JSON values."""
        return {
            "part": self.part,
            "root": self.root,
            "row": self.row,
            "run": self.run,
            "step": self.step,
        }

    @classmethod
    def from_fields(cls, value: canonical.JSON) -> "TreeClaim":
        """Read a claim; FormatError for anything that `fields` does not give."""
        if not isinstance(value, dict) or value.keys() != _CLAIM_FIELDS:
            raise FormatError("claim: not an object of part, root, row, run, step", code="fields")
        run, row, root = (hex_digest(value[name], name) for name in ("run", "row", "root"))
        return cls(run, row, _part(value["part"]), _step(value["step"]), root)

    def sign(self, key: PrivateKey) -> bytes:
        """Return the run key's signature, 64 bytes."""
        return key.sign(self._message())

    def check(self, public: bytes, signature: bytes) -> None:
        """Check a signature of the claim; RefusedError where it does not verify."""
        verify_signature(public, self._message(), signature)

    def _message(self) -> bytes:
        return _DOMAIN + canonical.encode(self.fields())


@dataclass(frozen=True, slots=True)
class ServedTensor:
    """Name a tensor by its header, and the root of its tiles (32 bytes)."""

    header: TensorHeader
    top: bytes


@dataclass(frozen=True, slots=True)
class TreeManifest:
    """Describe one tree of a run: what its digest is made of, down to the roots of tiles."""

    run: str
    row: str
    part: str
    step: int
    alg: str
    structure: bytes
    tensors: tuple[ServedTensor, ...]

    def root(self, hash_level: LevelHash) -> bytes:
        """Return the digest of the tree that this manifest describes."""
        digests = [
            hash_level(DigestLevel.TENSOR, tensor_bytes(t.header.to_bytes(), t.top))
            for t in self.tensors
        ]
        tensors = set_root(hash_level, digests)
        material = state_bytes(self.step, len(digests), self.structure, tensors)
        return hash_level(DigestLevel.STATE, material)

    def claim(self, hash_level: LevelHash) -> TreeClaim:
        """Return what is signed beside this manifest."""
        root = self.root(hash_level).hex()
        return TreeClaim(self.run, self.row, self.part, self.step, root)

    def to_bytes(self) -> bytes:
        """Write the manifest as canonical JSON."""
        return canonical.encode(
            {
                "alg": self.alg,
                "format": FORMAT,
                "part": self.part,
                "row": self.row,
                "run": self.run,
                "step": self.step,
                "structure": self.structure.hex(),
                "tensors": [
                    {"header": t.header.to_bytes().hex(), "top": t.top.hex()} for t in self.tensors
                ],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "TreeManifest":
        """Read a manifest without judging it; FormatError for any other bytes."""
        value = canonical.decode(data, max_bytes=MAX_BYTES)
        if not isinstance(value, dict) or value.keys() != _FIELDS or value["format"] != FORMAT:
            raise FormatError(f"manifest: not an object of the format {FORMAT!r}", code="fields")
        listed = value["tensors"]
        if not isinstance(listed, list) or not listed:
            raise FormatError("manifest: tensors is no list of them", code="tensors")
        alg = value["alg"]
        if not isinstance(alg, str) or alg not in ALGORITHMS:
            raise FormatError("manifest: alg is unknown", code="alg")
        tensors = tuple(_tensor(item) for item in listed)
        paths = [encode_path(tensor.header.path) for tensor in tensors]
        if any(a >= b for a, b in zip(paths, paths[1:], strict=False)):
            raise FormatError("manifest: tensors are not sorted by path, each once", code="order")
        return cls(
            run=hex_digest(value["run"], "run"),
            row=hex_digest(value["row"], "row"),
            part=_part(value["part"]),
            step=_step(value["step"]),
            alg=alg,
            structure=bytes.fromhex(hex_digest(value["structure"], "structure")),
            tensors=tensors,
        )


@dataclass(frozen=True, slots=True)
class ShownTree:
    """A manifest as it is handed over: with the run key's signature of its claim, or None."""

    manifest: TreeManifest
    signature: bytes | None

    def to_bytes(self) -> bytes:
        """Write both as canonical JSON."""
        manifest = self.manifest.to_bytes()
        return canonical.encode(
            {
                "manifest": canonical.decode(manifest, max_bytes=len(manifest)),
                "signature": None if self.signature is None else self.signature.hex(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "ShownTree":
        """Read both without judging them; FormatError for any other bytes."""
        value = canonical.decode(data, max_bytes=MAX_BYTES)
        if not isinstance(value, dict) or value.keys() != {"manifest", "signature"}:
            raise FormatError("not an object of manifest and signature", code="fields")
        manifest = TreeManifest.from_bytes(canonical.encode(value["manifest"]))
        signature = value["signature"]
        return cls(manifest, None if signature is None else hex_signature(signature))


def hex_signature(value: canonical.JSON) -> bytes:
    """Return the 64 bytes of a signature in hex; FormatError for anything else."""
    if (
        not isinstance(value, str)
        or len(value) != 2 * SIGNATURE_BYTES
        or value.strip("0123456789abcdef")
    ):
        raise FormatError("signature is not 64 bytes in lower-case hex", code="signature")
    return bytes.fromhex(value)


def hex_digest(value: canonical.JSON, name: str) -> str:
    """Return 64 lower-case hex digits; FormatError for anything else."""
    if not isinstance(value, str) or len(value) != 64 or value.strip("0123456789abcdef"):
        raise FormatError(f"{name} is not 64 lower-case hex digits", code="digest")
    return value


def _part(value: canonical.JSON) -> str:
    if not isinstance(value, str) or value not in PARTS:
        raise FormatError(f"part is none of {', '.join(PARTS)}", code="part")
    return value


def _step(value: canonical.JSON) -> int:
    if type(value) is not int or not 0 <= value <= MAX_STEP:
        raise FormatError("step is not a count of completed steps", code="step")
    return value


def _tensor(value: canonical.JSON) -> ServedTensor:
    if not isinstance(value, dict) or value.keys() != {"header", "top"}:
        raise FormatError("manifest: a tensor is not an object of header and top", code="tensors")
    header = value["header"]
    try:
        data = bytes.fromhex(cast(str, header))
    except (ValueError, TypeError):
        raise FormatError("manifest: a header is not hexadecimal", code="tensors") from None
    if data.hex() != header:
        raise FormatError("manifest: a header is not lower-case hexadecimal", code="tensors")
    return ServedTensor(
        TensorHeader.from_bytes(data), bytes.fromhex(hex_digest(value["top"], "top"))
    )
