"""Judges what a source says about a tree before a byte of the tree is looked at.

The manifest's root is recomputed. If it is the committed digest, the manifest describes the
committed tree, whoever sent it. If not, it matters who says so: under the run key's signature it
contradicts the run, without one it is somebody's wrong answer.
"""

from dataclasses import dataclass
from typing import Any

import jax

from anh_jax.audit.state_source import Asked, Signed, Withheld, WithheldError
from anh_jax.digest.hashes import level_hash
from anh_jax.program.tree import Path, Tree, leaves_of, path_text
from attest.errors import FormatError, RefusedError
from attest.served_tree import ShownTree, TreeManifest
from attest.tensor_header import TensorHeader


@dataclass(frozen=True)
class RunNames:
    """What an auditor knows of the run from its log: id and run key in hex, digest algorithm."""

    run: str
    run_key: str
    alg: str


@dataclass(frozen=True)
class Leaf:
    """One tensor of a tree: its header in the manifest, and the abstract value it is to become.

    `index` is its place in the manifest; `plain` is `shape` with keys as their words.
    """

    index: int
    header: TensorHeader
    shape: jax.ShapeDtypeStruct
    plain: jax.ShapeDtypeStruct


def read_shown(data: bytes, asked: Asked, names: RunNames) -> ShownTree:
    """Return a manifest that describes the committed tree.

    Raises WithheldError where it is none; with the run key's signature where that contradicts what
    is committed.
    """
    try:
        shown = ShownTree.from_bytes(data)
    except FormatError as error:
        words = f"{asked.part} {asked.step}: what was answered is no manifest ({error})"
        raise WithheldError(Withheld(asked, "other bytes", _short(words))) from error
    manifest = shown.manifest
    root = manifest.root(level_hash(names.alg)).hex()
    if root == asked.committed:
        return shown
    words = f"{asked.part} {asked.step}: the digest shown is {root[:16]}, {asked.committed[:16]} is"
    words = f"{words} committed"
    if manifest.run != names.run:
        words = f"{words}; it is of run {manifest.run[:16]}"
    signed = _signed(shown, asked, names, root)
    if signed is not None:
        words = f"{words}; the run key signed it"
    withheld = Withheld(asked, "other digest", words, digest=root, signed=signed)
    raise WithheldError(withheld)


def leaves_shown(manifest: TreeManifest, asked: Asked, abstract: Tree) -> dict[Path, Leaf]:
    """Join the tensors of a manifest to the leaves of the tree that the contract has there.

    Raises WithheldError where they do not fit: the run committed another tree.
    """
    wanted = leaves_of(abstract)
    found = {tensor.header.path: i for i, tensor in enumerate(manifest.tensors)}
    leaves: dict[Path, Leaf] = {}
    for path, shape in wanted.items():
        index = found.get(path)
        plain = plain_shape(shape)
        header = None if index is None else manifest.tensors[index].header
        fits = header is not None and (header.dims, header.dtype) == (plain.shape, plain.dtype.name)
        if header is None or index is None or not fits:
            raise WithheldError(_other_tree(asked, path))
        leaves[path] = Leaf(index, header, shape, plain)
    for path in found.keys() - wanted.keys():
        raise WithheldError(_other_tree(asked, tuple(map(str, path))))
    return leaves


def plain_shape(shape: Any) -> jax.ShapeDtypeStruct:
    """Return an abstract array; of keys, their words."""
    return jax.eval_shape(jax.random.key_data, shape) if is_key(shape) else shape


def is_key(shape: Any) -> bool:
    """Tell whether a leaf holds typed PRNG keys."""
    return jax.dtypes.issubdtype(shape.dtype, jax.dtypes.prng_key)


def _other_tree(asked: Asked, path: Path) -> Withheld:
    words = f"{asked.part} {asked.step}: {path_text(path)} is not as in the contract's programs"
    return Withheld(asked, "other digest", words, path=path_text(path), digest=asked.committed)


def _signed(shown: ShownTree, asked: Asked, names: RunNames, root: str) -> Signed | None:
    """Return the run key's signature of a digest for the very tree that was asked for."""
    claim = shown.manifest.claim(level_hash(names.alg))
    asked_for = (names.run, asked.row, asked.part, asked.step)
    if shown.signature is None or (claim.run, claim.row, claim.part, claim.step) != asked_for:
        return None
    try:
        claim.check(bytes.fromhex(names.run_key), shown.signature)
    except RefusedError:
        return None
    return Signed(root, shown.signature.hex())


def _short(words: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in words)[:300]
