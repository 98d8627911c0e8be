"""What a stored program takes and gives: paths, shapes, dtypes and shardings, as canonical JSON.

The signature is half of a program's identity (docs/protocol.md, "Programs"). It is complete: a
reader who has it and the artifact needs none of the Python that made them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from anh_jax.errors import ProgramError
from anh_jax.program.tree import Path, Tree, empty_nodes, from_leaves, leaves_of, path_text
from attest import canonical
from attest.errors import AttestError

BATCH = "b"
AXES = ("data", "fsdp", "tensor")
MAX_SIGNATURE_BYTES = 16 * 1024 * 1024
# A leaf record sits at depth 5: signature, inputs, leaf, spec, axis names.
_MAX_DEPTH = 8

Shape: TypeAlias = tuple[int | str, ...]
Spec: TypeAlias = tuple[tuple[str, ...], ...]


class Tensor(msgspec.Struct, frozen=True):
    """Describe one array: shape (`"b"` is the batch), dtype name, mesh axes of each dimension.

    An empty `spec` means replicated. Typed keys have the dtype `key<fry>`.
    """

    shape: Shape
    dtype: str
    spec: Spec = ()


class Leaf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Describe one input or output of a program."""

    path: Path
    shape: Shape
    dtype: str
    spec: Spec

    @property
    def text(self) -> str:
        """Name the leaf as error messages do."""
        return path_text(self.path)


class ProgramSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """List a program's inputs and outputs in the order of its `main` function.

    The first key of an input's path is the argument's name; `arguments` gives their order.
    `empty_inputs` and `empty_outputs` are dicts without entries, which no leaf could show.
    """

    name: str
    stablehlo: str
    arguments: tuple[str, ...]
    inputs: tuple[Leaf, ...]
    outputs: tuple[Leaf, ...]
    empty_inputs: tuple[Path, ...] = ()
    empty_outputs: tuple[Path, ...] = ()
    version: int = 1

    def to_bytes(self) -> bytes:
        """Encode the signature as canonical JSON."""
        return canonical.encode(msgspec.to_builtins(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> "ProgramSignature":
        """Decode and check a canonical signature.

        Raises:
            ProgramError: the bytes are not a canonical signature of version 1.
        """
        try:
            value = canonical.decode(data, max_bytes=MAX_SIGNATURE_BYTES, max_depth=_MAX_DEPTH)
            signature = msgspec.convert(value, cls)
        except (AttestError, msgspec.ValidationError) as error:
            raise ProgramError(f"program signature: {error}") from error
        if signature.to_bytes() != data:
            raise ProgramError("program signature: fields with default values are left out")
        check_signature(signature)
        return signature

    def inputs_of(self, argument: str) -> Tree:
        """Return the tree of `Tensor` that one argument takes.

        Raises:
            ProgramError: the program has no such argument.
        """
        if argument not in self.arguments:
            raise ProgramError(f"program {self.name}: no argument {argument!r}")
        leaves = {x.path[1:]: tensor_of(x) for x in self.inputs if x.path[0] == argument}
        return from_leaves(leaves, [p[1:] for p in self.empty_inputs if p[0] == argument])

    def output_tree(self) -> Tree:
        """Return the tree of `Tensor` that the program gives."""
        return from_leaves({x.path: tensor_of(x) for x in self.outputs}, self.empty_outputs)


@dataclass(frozen=True)
class StoredProgram:
    """Hold a program as it lies on disk: StableHLO bytes and signature.

    `named` is the same program with the operators' names, for profilers; it is no part of the
    identity and is accepted only where stripping it gives `artifact`.
    """

    artifact: bytes
    signature: ProgramSignature
    named: bytes | None = None

    @property
    def name(self) -> str:
        """Return the program's name."""
        return self.signature.name

    @property
    def id(self) -> str:
        """Return SHA-256 over the digests of signature and artifact, in hex."""
        signature = hashlib.sha256(self.signature.to_bytes()).digest()
        return hashlib.sha256(signature + hashlib.sha256(self.artifact).digest()).hexdigest()


def tensor_of(leaf: Leaf) -> Tensor:
    """Return the leaf without its path."""
    return Tensor(leaf.shape, leaf.dtype, leaf.spec)


def input_leaves(arguments: Mapping[str, Tree]) -> tuple[Leaf, ...]:
    """Return the leaves of the arguments' trees of `Tensor`, in the order of `main`."""
    return tuple(
        leaf_of(path, tensor)
        for name, tree in arguments.items()
        for path, tensor in leaves_of(tree, (name,)).items()
    )


def empty_inputs(arguments: Mapping[str, Tree]) -> tuple[Path, ...]:
    """Return the paths of the dicts without entries among the arguments."""
    return tuple(p for name, tree in arguments.items() for p in empty_nodes(tree, (name,)))


def leaf_of(path: Path, tensor: Tensor) -> Leaf:
    """Return the leaf at `path`, its spec written out for each dimension."""
    spec = tensor.spec or ((),) * len(tensor.shape)
    return Leaf(path, tensor.shape, tensor.dtype, spec)


def check_signature(signature: ProgramSignature) -> None:
    """Refuse a signature whose parts do not fit together.

    Raises:
        ProgramError: names the leaf and the rule it breaks.
    """
    if signature.version != 1:
        raise ProgramError(f"program {signature.name}: signature version {signature.version}")
    for leaf in (*signature.inputs, *signature.outputs):
        _check_leaf(signature.name, leaf)
    _check_order(signature)
    symbolic = any(BATCH in leaf.shape for leaf in signature.inputs)
    for leaf in signature.outputs:
        if BATCH in leaf.shape and not symbolic:
            raise ProgramError(
                f"program {signature.name}: output {leaf.text} has a batch dimension"
                " that no input has"
            )


def _check_order(signature: ProgramSignature) -> None:
    rank = {name: index for index, name in enumerate(signature.arguments)}
    if len(rank) != len(signature.arguments):
        raise ProgramError(f"program {signature.name}: an argument is named twice")
    for path in (*(x.path for x in signature.inputs), *signature.empty_inputs):
        if not path or path[0] not in rank:
            raise ProgramError(f"program {signature.name}: input {path_text(path)} has no argument")
    order: list[Any] = [(rank[x.path[0]], x.path) for x in signature.inputs]
    results = [x.path for x in signature.outputs]
    if order != sorted(set(order)) or results != sorted(set(results)):
        raise ProgramError(f"program {signature.name}: leaves are not in flattening order")


def _check_leaf(name: str, leaf: Leaf) -> None:
    where = f"program {name}: {leaf.text or 'the only output'}"
    for size in leaf.shape:
        if size != BATCH and (isinstance(size, str) or size < 0):
            raise ProgramError(f"{where}: dimension {size!r} is neither a size nor {BATCH!r}")
    if len(leaf.spec) != len(leaf.shape):
        raise ProgramError(f"{where}: {len(leaf.shape)} dimensions but {len(leaf.spec)} specs")
    used = [axis for axes in leaf.spec for axis in axes]
    if len(used) != len(set(used)) or not set(used) <= set(AXES):
        raise ProgramError(f"{where}: spec {leaf.spec} is not a use of the axes {AXES}, each once")
