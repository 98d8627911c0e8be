"""States and gradients that a trainer handed over as files: what `anh replay --out` writes.

Steps are files of `training/retained_steps.py`. Beside them lie manifests, `<step>.state.json` and
`<step>.gradient.json`: with one, a file that is not the committed tree is told down to the tensor,
and what the run key signed otherwise is evidence. Without them the files alone are compared.
The step of a stale branch lies in a folder named after its row, without manifests.
"""

from collections.abc import Callable
from pathlib import Path

from anh_jax.audit.shown_tree import RunNames, read_shown
from anh_jax.audit.state_source import Asked, Withheld, WithheldError
from anh_jax.digest.hashes import level_hash
from anh_jax.digest.host import tree_digest
from anh_jax.errors import AnhError
from anh_jax.training.executor import Tree
from anh_jax.training.retained_steps import RetainedSteps
from anh_jax.training.state import State
from attest.digest_tree import DigestLevel, path_text, tensor_bytes
from attest.served_tree import MAX_BYTES, TreeManifest


class FolderSource:
    """The states and gradients in one folder, none of which counts before it is checked."""

    def __init__(self, folder: Path, names: RunNames) -> None:
        self._folder = folder
        self._names = names
        self._steps = RetainedSteps(folder)

    def state(self, asked: Asked, abstract: Tree) -> State:
        """Return the committed state of a step; raises WithheldError where it is not here."""
        return self._checked(asked, lambda: self._of(asked).state(asked.step, abstract))

    def outputs(self, asked: Asked, abstract: Tree) -> Tree:
        """Return `gradient` and `statistics`; raises WithheldError where they are not here."""
        return self._checked(asked, lambda: self._of(asked).outputs(asked.step, abstract))

    def _of(self, asked: Asked) -> RetainedSteps:
        """Return the files that a row's step is looked for in: its branch's own, or the line's."""
        branch = branch_folder(self._folder, asked.row)
        return RetainedSteps(branch) if branch.is_dir() else self._steps

    def _checked(self, asked: Asked, read: Callable[[], Tree]) -> Tree:
        path = self._of(asked).path(asked.step)
        manifest = self._manifest(asked)
        if not path.is_file():
            words = f"{asked.part} {asked.step}: {path.name} is not in the folder"
            raise WithheldError(Withheld(asked, "none", words))
        try:
            found = read()
        except AnhError as error:
            words = f"{asked.part} {asked.step}: {path.name} does not hold it, or is damaged"
            raise WithheldError(Withheld(asked, "other bytes", words)) from error
        digest = tree_digest(found, step=asked.step, alg=self._names.alg)
        if digest.root.hex() == asked.committed:
            return found
        ours = {tensor.path: tensor.root for tensor in digest.tensors}
        odd = [] if manifest is None else _odd(manifest, ours, self._names.alg)
        name = odd[0] if odd else ""
        more = f": {name}" + (f" and {len(odd) - 1} more" if len(odd) > 1 else "") if odd else ""
        words = f"{asked.part} {asked.step}: {path.name} is not the committed one{more}"
        raise WithheldError(
            Withheld(asked, "other bytes", words, path=name, digest=digest.root.hex())
        )

    def _manifest(self, asked: Asked) -> TreeManifest | None:
        """Return the manifest that lies beside a step's file, checked; None where there is none."""
        path = self._of(asked).path(asked.step).parent / manifest_name(asked.part, asked.step)
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            return read_shown(stream.read(MAX_BYTES + 1), asked, self._names).manifest


def branch_folder(folder: Path, row: str) -> Path:
    """Return where the step of a row off the line lies (its hash, hex)."""
    return folder / f"branch-{row[:16]}"


def manifest_name(part: str, step: int) -> str:
    """Return the name of the manifest of one tree."""
    return f"{step}.{part}.json"


def _odd(manifest: TreeManifest, ours: dict[tuple[str | int, ...], bytes], alg: str) -> list[str]:
    """Return the tensors whose digests are not those of the manifest."""
    hash_level = level_hash(alg)
    return [
        path_text(t.header.path)
        for t in manifest.tensors
        if ours.get(t.header.path)
        != hash_level(DigestLevel.TENSOR, tensor_bytes(t.header.to_bytes(), t.top))
    ]
