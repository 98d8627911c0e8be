"""Opens a run for replays: what it has signed, its programs, and every state that lies there."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anh_jax.attested_run import genesis_of, run_id
from anh_jax.audit.benches import Benches
from anh_jax.audit.kept_states import KeptStates
from anh_jax.audit.regeneration import Regeneration
from anh_jax.audit.transcript import SignedRun
from anh_jax.digest.hashes import level_hash
from anh_jax.digest.served import Place, ServedTree
from anh_jax.line import walk_line
from anh_jax.run_directory import RunDirectory
from anh_jax.training.checkpoints import TrainingCheckpoints
from anh_jax.training.retained_steps import RetainedSteps
from anh_jax.workbench import MeshSizes, read_materials
from attest.keys import PrivateKey
from attest.served_tree import ShownTree
from attest.statements import Attempt, decode_statement
from launch.announcement import begun_run
from launch.state_shelf import Wish
from launch.virtual_devices import give_devices

# Reading keeps everything: a manager that may keep fewer would remove the others.
_KEEP_ALL = 1 << 30


@dataclass(frozen=True, slots=True)
class Opened:
    """A run that can be replayed; `key` is its run key, None where it is not at hand."""

    run: RunDirectory
    signed: SignedRun
    regeneration: Regeneration
    key: PrivateKey | None

    @property
    def steps(self) -> int:
        """Return how many steps are signed so far."""
        return len(self.signed.line.rows)

    def committed(self, wish: Wish) -> str | None:
        """Return the digest that the run committed for a tree; None where it committed none."""
        if not (0 if wish.part == "state" else 1) <= wish.step <= self.steps:
            return None
        if wish.part == "state":
            return self.signed.state_root(wish.step)
        return self.signed.line.rows[wish.step - 1].row.gradient_root

    def why_not(self, wish: Wish) -> str:
        """Say why a tree can never be shown; empty where it can."""
        if self.committed(wish) is not None:
            return ""
        if wish.step > self.steps:
            return f"the run has signed {self.steps} steps"
        return f"{wish.part} {wish.step}: the run commits none"


class SignedTree(ServedTree):
    """A tree to be served, with its manifest signed where the run key is at hand."""

    def __init__(self, tree: object, opened: Opened, wish: Wish) -> None:
        signed = opened.signed
        row = signed.line.hashes[wish.step].hex()
        alg = signed.genesis.alg
        super().__init__(tree, Place(signed.run, row, wish.part, wish.step), alg=alg)
        claim = self.manifest.claim(level_hash(alg))
        signature = None if opened.key is None else claim.sign(opened.key)
        self.shown = ShownTree(self.manifest, signature).to_bytes()
        self.tensors = len(self.manifest.tensors)


@contextmanager
def opened_run(
    directory: Path, watch: Callable[[int], None] = lambda step: None
) -> Generator[Opened, None, None]:
    """Open a run to replay its steps; `watch` is called with each step taken on the way.

    Raises AnhError where the run has signed nothing, or is not what its contract names.
    """
    run = begun_run(directory)
    signed = read_signed(run)
    meshes = [
        MeshSizes(data=a.mesh.data, fsdp=a.mesh.fsdp, tensor=a.mesh.tensor)
        for a in signed.attempts.values()
    ]
    give_devices(meshes or [MeshSizes()])
    checkpoints = TrainingCheckpoints(run.checkpoints, keep=_KEEP_ALL)
    try:
        kept = KeptStates(signed, checkpoints, RetainedSteps(run.retained))
        benches = Benches(read_materials(run), signed.genesis)
        key = run.key("run") if run.key_path("run").is_file() else None
        yield Opened(run, signed, Regeneration(signed, benches, kept, watch), key)
    finally:
        checkpoints.close()


def read_signed(run: RunDirectory) -> SignedRun:
    """Read what a run has signed so far from its own files."""
    attempts: dict[int, Attempt] = {}
    for number in run.attempts():
        said = decode_statement(run.statement(f"attempt-{number}").payload)
        if isinstance(said, Attempt):
            attempts[number] = said
    name = run_id(run)
    return SignedRun(
        run=name,
        genesis=genesis_of(run),
        attempts=attempts,
        line=walk_line(run, run_id=bytes.fromhex(name)),
    )
