"""A recording: every operator of one step's program with the values it took and gave, committed.

Each evaluated operator is an entry, in order of execution; the RFC 6962 root over the entries is
signed by the run key, over the payload

    {"backend", "count", "format": "anh recording v1", "program": id, "root", "row": row hash,
     "run", "step"}

An entry is `{"inputs": [digest], "iterations": [n], "name", "outputs": [digest], "piece"}`:
iterations of the loops around the operator, outermost first, and the microbatch. Its name depends
on the stored program alone, so any two recordings of a program can be compared. A value is

    {"dims": [n], "dtype"} || 0x0a || its bytes, C order, little endian

and its digest SHA-256("anh v1 value" || 0x00 || value).
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, cast

from attest import canonical
from attest.canonical import JSON
from attest.digest_tree import ELEMENT_BYTES
from attest.envelope import Envelope
from attest.errors import FormatError
from attest.merkle import leaf_hash
from attest.schema import COUNT, HEX64, Count, Hex64, Ordinal, Text, built, listed, one_of

MAX_PAYLOAD_BYTES = 4096
MAX_ENTRY_BYTES = 1 << 16
_HEADER_BYTES = 4096
# More than any program's tensors have, and as many as NumPy can hold.
_MAX_DIMS = 64
BACKENDS = ("cpu", "gpu", "tpu")


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor as operators exchange it; `data` are its bytes in C order."""

    dtype: str
    dims: tuple[int, ...]
    data: bytes

    def to_bytes(self) -> bytes:
        """Write the value as it is hashed and sent."""
        header = canonical.encode({"dims": self.dims, "dtype": self.dtype})
        return header + b"\n" + self.data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Value":
        """Read a value; `Value.from_bytes(x).to_bytes() == x` holds.

        Raises:
            FormatError: for other bytes.
        """
        header, newline, body = data.partition(b"\n")
        fields = canonical.decode(header, max_bytes=_HEADER_BYTES, max_depth=2)
        if not newline or not isinstance(fields, dict) or fields.keys() != {"dims", "dtype"}:
            raise FormatError("value: no header of dims and dtype", code="value")
        dims, dtype = fields["dims"], fields["dtype"]
        if not isinstance(dims, list) or not all(type(n) is int and n >= 0 for n in dims):
            raise FormatError("value: dims are no list of counts", code="value")
        if len(dims) > _MAX_DIMS:
            raise FormatError(f"value: more than {_MAX_DIMS} dims", code="value")
        sizes = tuple(cast("list[int]", dims))
        if not isinstance(dtype, str) or dtype not in ELEMENT_BYTES:
            raise FormatError(f"value: unknown dtype {str(dtype)[:40]!r}", code="value")
        if len(body) != math.prod(sizes) * ELEMENT_BYTES[dtype]:
            raise FormatError(
                "value: its bytes are not as many as dims and dtype say", code="value"
            )
        return cls(dtype, sizes, body)

    def digest(self) -> str:
        """Return the value's digest, 64 hex digits."""
        return value_digest(self.to_bytes())


def value_digest(data: bytes) -> str:
    """Return the digest of a value's bytes, 64 hex digits."""
    return hashlib.sha256(b"anh v1 value\x00" + data).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One evaluated operator: what it is called, and the digests of what it took and gave."""

    piece: Count
    name: Text
    iterations: Annotated[tuple[int, ...], listed(COUNT)]
    inputs: Annotated[tuple[str, ...], listed(HEX64)]
    outputs: Annotated[tuple[str, ...], listed(HEX64)]

    def to_bytes(self) -> bytes:
        """Write the entry as canonical JSON."""
        return canonical.encode(ENTRY.dump(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Entry":
        """Read an entry; raises FormatError for other bytes."""
        return load_entry(canonical.decode(data, max_bytes=MAX_ENTRY_BYTES, max_depth=3))

    def leaf(self) -> bytes:
        """Return the leaf hash under the recording's root."""
        return leaf_hash(self.to_bytes())

    @property
    def text(self) -> str:
        """Name the operator and its iterations, as people read it."""
        loops = f" iteration {','.join(map(str, self.iterations))}" if self.iterations else ""
        piece = f" microbatch {self.piece}" if self.piece else ""
        return f"{self.name}{loops}{piece}"


ENTRY = built(Entry)


def load_entry(value: JSON) -> Entry:
    """Read an entry from its JSON value; raises FormatError naming the field."""
    return cast(Entry, ENTRY.load(value, "entry"))


@dataclass(frozen=True, slots=True)
class Recording:
    """What the run key signs about a recording: of which step and program, how many entries."""

    FORMAT: ClassVar[str] = "anh recording v1"

    backend: Annotated[str, one_of(*BACKENDS)]
    count: Ordinal
    program: Hex64
    root: Hex64
    row: Hex64
    run: Hex64
    step: Ordinal

    def payload(self) -> bytes:
        """Write what is signed: no in-toto statement, so it can pass for none."""
        return canonical.encode({**cast("dict[str, JSON]", _RECORDING.dump(self)), **_MARK})

    @classmethod
    def from_envelope(cls, envelope: Envelope) -> "Recording":
        """Read what an envelope signs; signatures are the caller's to check.

        Raises:
            FormatError: for any other payload.
        """
        value = canonical.decode(envelope.payload, max_bytes=MAX_PAYLOAD_BYTES, max_depth=2)
        if not isinstance(value, dict) or value.pop("format", None) != cls.FORMAT:
            raise FormatError(f"recording: no payload of the format {cls.FORMAT!r}", code="format")
        return cast(Recording, _RECORDING.load(value, "recording"))


_RECORDING = built(Recording)
_MARK: dict[str, JSON] = {"format": Recording.FORMAT}
