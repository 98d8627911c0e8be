"""A refutation of a run's start: a tensor of state 0 that the contract's `init` does not give.

    {"artifact": base64, "contract": {...}, "element", "format": "anh init refutation v1",
     "genesis": envelope, "opening": {...}, "signature": base64}

Genesis commits state 0, the contract names the program and its seed. Where every operator of the
program is exact, it gives the same bits on every machine: `anh_jax.audit.init_refutation` runs it.
"""

from dataclasses import dataclass

from attest import canonical
from attest.canonical import JSON
from attest.digest_tree import path_text
from attest.file_fields import (
    hold,
    json_of,
    read_bytes,
    read_count,
    read_object,
    text,
    write_object,
)
from attest.opened_element import Element, element_of
from attest.opening import Opening, verify_opening
from attest.refutation import program_id
from attest.signed_step import GENESIS_FIELDS, SignedGenesis, verify_genesis
from attest.statements import Genesis

FORMAT = "anh init refutation v1"
_FIELDS = GENESIS_FIELDS | frozenset(("artifact", "element", "format", "opening", "signature"))


@dataclass(frozen=True, slots=True)
class InitRefutation:
    """Hold one element of state 0, opened; `signature` and `artifact` are the program's bytes."""

    signed: SignedGenesis
    signature: bytes
    artifact: bytes
    element: int
    opening: bytes

    def to_bytes(self) -> bytes:
        """Write the file as canonical JSON; FormatError where it would be too large."""
        value: dict[str, JSON] = {
            **self.signed.fields(),
            "artifact": text(self.artifact),
            "element": self.element,
            "format": FORMAT,
            "opening": json_of(self.opening),
            "signature": text(self.signature),
        }
        return write_object(value, what="program and tile are")

    @classmethod
    def from_bytes(cls, data: bytes) -> "InitRefutation":
        """Read the file without judging it; FormatError for any other bytes."""
        value = read_object(data, fields=_FIELDS, form=FORMAT)
        return cls(
            signed=SignedGenesis.from_fields(value),
            signature=read_bytes(value["signature"], "signature"),
            artifact=read_bytes(value["artifact"], "artifact"),
            element=read_count(value["element"], "element"),
            opening=canonical.encode(value["opening"]),
        )


@dataclass(frozen=True, slots=True)
class ShownInit:
    """What a verified file shows: the run's id, its genesis, and one element of its state 0."""

    run: str
    genesis: Genesis
    shown: Element

    @property
    def name(self) -> str:
        """Name the tensor that the element is in."""
        return path_text(self.shown.header.path)


def verify_init_refutation(file: InitRefutation) -> ShownInit:
    """Check all that needs no program: the signature, the program's id, the opened tile.

    Raises:
        RefusedError: naming the check that failed.
        FormatError: a part is none of its kind.
    """
    genesis = verify_genesis(file.signed)
    program = program_id(file.signature, file.artifact)
    hold(program == file.signed.contract.programs.init, "program", "is not the contract's init")
    root = bytes.fromhex(genesis.state_root)
    opening: Opening = verify_opening(file.opening, root=root, alg=genesis.alg)
    hold(opening.step == 0, "opening", "is of another step")
    run = file.signed.genesis.record_hash().hex()
    return ShownInit(run, genesis, element_of(opening, file.element))
