"""Host and devices digest the same rows, and neither changes a bit of what is trained."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import anh_jax.training.worker as worker_module
from anh_jax.attested_run import genesis_of
from anh_jax.digest.exchange import ReplicaError
from anh_jax.digest.host import tree_digest
from anh_jax.errors import AnhError
from anh_jax.experiment import experiment_yaml, load_experiment
from anh_jax.run_directory import RunDirectory
from anh_jax.training import digest_policy
from anh_jax.training.digester_choice import choose_digester
from anh_jax.training.executor import Executor
from anh_jax.training.mesh import make_mesh
from anh_jax.workbench import MeshSizes, Workbench, read_materials
from launch.attempt_broker import DirectBroker
from launch.driver import RunDriver

if jax.config.jax_num_cpu_devices < 8:
    jax.config.update("jax_num_cpu_devices", 8)

MESHES = {
    "one device": (),
    "data 2": ("mesh.data=2",),
    "fsdp 2, tensor 2": ("mesh.fsdp=2", "mesh.tensor=2"),
}


@dataclass
class Reporter:
    """Keeps the phases; asks for a stop after a step, if one is named."""

    phases: list[str]
    stop_after: int | None = None
    asked: int = 0

    def phase(self, name: str, seconds: float) -> None:
        self.phases.append(name)

    def checkpoint(self, step: int, path: Path) -> None: ...

    def should_stop(self) -> bool:
        self.asked += 1
        return self.asked == self.stop_after


@dataclass(frozen=True)
class Trained:
    """A run in this process: its directory, its last state's root, the phases it told."""

    run: RunDirectory
    root: bytes
    phases: list[str]


class Trainer:
    """Trains the small experiment in this process, from one contract; each way once."""

    def __init__(self, contract: RunDirectory, folder: Path) -> None:
        self._contract = contract
        self._folder = folder
        self._trained: dict[tuple[str, ...], Trained] = {}

    def new_run(self, *changes: str) -> RunDirectory:
        """Return a run directory in which only the contract lies."""
        root = self._folder / f"run-{len(list(self._folder.iterdir()))}"
        run = RunDirectory.create(root)
        for name in ("programs", "data"):
            shutil.copytree(self._contract.root / name, root / name, dirs_exist_ok=True)
        shutil.copy(self._contract.root / "contract.json", root)
        experiment = load_experiment(self._contract.root / "config.yaml", changes)
        (root / "config.yaml").write_text(experiment_yaml(experiment))
        return run

    def __call__(self, *changes: str) -> Trained:
        if changes not in self._trained:
            self._trained[changes] = self.train(self.new_run(*changes))
        return self._trained[changes]

    def train(self, run: RunDirectory, *, stop_after: int | None = None) -> Trained:
        """Train (on) in this process."""
        states: list[Any] = []
        loop = worker_module.train

        def kept(*arguments: Any) -> Any:
            states.append(loop(*arguments))
            return states[-1]

        reporter = Reporter([], stop_after)
        with pytest.MonkeyPatch.context() as patch, RunDriver(run) as driver:
            patch.setattr(worker_module, "train", kept)
            worker_module.train_worker(
                run.root, rank=0, processes=1, broker=DirectBroker(driver.grant), reporter=reporter
            )
            driver.drain()
        return Trained(run, tree_digest(states[0], step=0).root, reporter.phases)


@pytest.fixture(scope="module")
def trainer(finished: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return Trainer(finished, tmp_path_factory.mktemp("digesters"))


@pytest.mark.parametrize("mesh", MESHES)
def test_devices_sign_the_rows_that_the_host_signs(
    mesh: str, trainer: Trainer, line_of: Any, facts: Any
) -> None:
    rows = {
        digester: [
            facts(signed.row)
            for signed in line_of(trainer(*MESHES[mesh], f"attest.digester={digester}").run).rows
        ]
        for digester in ("host", "device")
    }
    assert len(rows["host"]) == 24
    assert rows["device"] == rows["host"]


WAYS = {
    "host": ("attest.digester=host",),
    "device": ("attest.digester=device",),
    "seldom": ("attest.digester=device", "attest.digest=every 5"),
    "measured": ("attest.digest=auto",),
}


@pytest.mark.parametrize(
    ("mesh", "way"),
    [
        *(("one device", way) for way in WAYS),
        *((mesh, way) for mesh in ("data 2", "fsdp 2, tensor 2") for way in ("host", "device")),
        ("fsdp 2, tensor 2", "measured"),
    ],
)
def test_attesting_changes_no_bit_of_what_is_trained(mesh: str, way: str, trainer: Trainer) -> None:
    unattested = trainer(*MESHES[mesh], "attest.mode=off")
    assert trainer(*MESHES[mesh], *WAYS[way]).root == unattested.root


@pytest.mark.gpu
def test_on_a_gpu_too_devices_sign_what_the_host_signs_and_change_no_bit(
    trainer: Trainer, line_of: Any, facts: Any
) -> None:
    if jax.default_backend() != "gpu":
        pytest.skip("jax sees no GPU here: set JAX_PLATFORMS=cuda where there is one")
    unattested = trainer("attest.mode=off")
    ways = [trainer(*WAYS[way]) for way in WAYS]
    assert {way.root for way in ways} == {unattested.root}
    host, device = ([facts(s.row) for s in line_of(way.run).rows] for way in ways[:2])
    assert host == device
    assert genesis_of(ways[3].run).environment["digester"].startswith("device, blake3, ")


def test_auto_asks_the_host_on_cpus_and_the_run_says_so(trainer: Trainer) -> None:
    assert choose_digester("auto", make_mesh(), alg="blake3").digester.lag == 0
    assert choose_digester("device", make_mesh(), alg="blake3").digester.lag == 1
    host, device = trainer("attest.digester=host"), trainer("attest.digester=device")
    assert "digests: host, blake3" in host.phases
    assert genesis_of(host.run).environment["digester"] == "host, blake3"
    assert genesis_of(device.run).environment["digester"].startswith("device, blake3, ")


@pytest.mark.parametrize("digester", ["host", "device"])
def test_digested_buffers_are_given_away_and_may_not_be_digested_after(
    digester: Any, finished: RunDirectory
) -> None:
    bench = Workbench(read_materials(finished), MeshSizes(data=2), microbatch=None)
    digests = choose_digester(digester, bench.mesh, alg="blake3").digester
    state = bench.executor.initial_state(3)
    expected = tree_digest(state, step=0)
    pending = digests.start(state, step=0)
    outputs = bench.executor.gradient(state, bench.batch(1).pieces)
    bench.executor.update(state, outputs, bench.executor.scalars(outputs), 1)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state["parameters"]))
    assert pending.result() == expected
    with pytest.raises(AnhError, match="donated or deleted; digest before the step"):
        digests.start(state, step=0).result()


def flipped(tree: dict[str, Any], device: jax.Device) -> dict[str, Any]:
    """Return a tree in whose first leaf one replica has one other bit: a silent corruption."""
    leaves, form = jax.tree.flatten(tree)
    shards: list[jax.Array] = []
    for shard in leaves[0].addressable_shards:
        bits = np.array(shard.data)
        if shard.device == device:
            bits.reshape(-1).view(np.uint32)[0] ^= 1
        shards.append(jax.device_put(bits, shard.device))
    corrupt = jax.make_array_from_single_device_arrays(leaves[0].shape, leaves[0].sharding, shards)
    return jax.tree.unflatten(form, [corrupt, *leaves[1:]])


@pytest.fixture
def corrupting(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that lets a device flip a bit of the state after a step."""

    def corrupt(bad: int) -> None:
        honest = Executor.update

        def update(self: Executor, state: Any, outputs: Any, scalars: Any, step: int) -> Any:
            after = honest(self, state, outputs, scalars, step)
            if step != bad:
                return after
            return {**after, "parameters": flipped(after["parameters"], jax.devices()[1])}

        monkeypatch.setattr(Executor, "update", update)

    return corrupt


@pytest.mark.parametrize("digester", ["host", "device"])
def test_a_replica_with_other_bits_stops_the_run_by_the_next_checkpoint(
    digester: str, trainer: Trainer, corrupting: Any
) -> None:
    corrupting(6)
    run = trainer.new_run("mesh.data=2", f"attest.digester={digester}")
    with pytest.raises(ReplicaError) as caught:
        trainer.train(run)
    assert caught.value.exit_code == 1
    message = str(caught.value)
    assert "\n" not in message
    assert "parameters/" in message
    assert str(jax.devices()[1]) in message
    # What was honest is signed and the checkpoint's row is not. Devices compare at every step what
    # each of them hashes anyway, so they may notice earlier.
    rows = run.step_file(attempt=1, rank=0).read_bytes().splitlines()
    assert len(rows) in ((7,) if digester == "host" else (5, 6, 7))
    assert not list(run.checkpoints.glob("step_*"))


def test_a_policy_chosen_before_genesis_is_kept_by_whoever_resumes(
    trainer: Trainer, anh: Any, line_of: Any, facts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_policy, "choose_every", lambda *times, **limits: 4)
    run = trainer.new_run("attest.digest=auto")
    first = trainer.train(run, stop_after=3)
    assert any(phase.startswith("state digest auto: every 4; step ") for phase in first.phases)
    monkeypatch.setattr(digest_policy, "choose_every", lambda *times, **limits: 2)
    resumed = trainer.train(run)
    assert not any("timed" in phase for phase in resumed.phases)
    skipped = "resumed at step 3; state: the digest policy skips step 3, not compared"
    assert any(phase.startswith(skipped) for phase in resumed.phases)
    genesis = genesis_of(run)
    assert genesis.digest_policy == "every 4"
    assert genesis.environment["digestPolicy"].startswith("auto: every 4; step ")
    rows = line_of(run).rows
    fixed = line_of(trainer("attest.digest=every 4").run).rows
    assert [facts(signed.row) for signed in rows] == [facts(signed.row) for signed in fixed]
    opened = anh("open", str(run.root), "--step", "6", "--tensor", "step", "--tile", "0")
    assert opened.returncode == 2
    assert "--step 6: the digest policy skips the state of this step" in opened.stderr
    assert "the nearest that has a state root is step 8, " in opened.stderr
    assert "the nearest that a training checkpoint retains step 8" in opened.stderr


def test_a_run_that_starts_again_after_genesis_measures_nothing(trainer: Trainer) -> None:
    run = trainer.new_run("attest.digest=auto")
    first = trainer.train(run, stop_after=1)
    assert any("timed" in phase for phase in first.phases)
    shutil.rmtree(run.checkpoints)  # as if it had been killed before its first checkpoint
    again = trainer.train(run, stop_after=1)
    assert not any("timed" in phase for phase in again.phases)
