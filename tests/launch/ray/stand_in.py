"""A worker that trains nothing: it adds numbers across the mesh and keeps count in files."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from anh_jax.run_directory import write_atomically
from anh_jax.training.seams import AttemptBroker, AttemptRequest, Reporter


def train(
    run_directory: Path, *, rank: int, processes: int, broker: AttemptBroker, reporter: Reporter
) -> None:
    """Take the steps that ANH_STAND_IN asks for, from the newest checkpoint on."""
    wanted: dict[str, Any] = json.loads(os.environ.get("ANH_STAND_IN", "{}"))
    started = time.monotonic()
    if wanted.get("raise") == "at start":
        raise ValueError("the model is wrong\nin two lines")
    total = make_sum(processes)
    reporter.phase("program loaded", time.monotonic() - started)
    step, value = newest_checkpoint(run_directory)
    request = AttemptRequest(
        rank=rank,
        public_key_hex=f"{rank:064x}" if wanted.get("keys") != "same" else "0" * 64,
        resumed_record_hex=None,
        step=step,
        mesh={"data": processes, "fsdp": 1, "tensor": 1},
        processes=processes,
        environment={},
        reason="resume" if step else "start",
    )
    grant = broker.open_attempt(request)
    note_facts(run_directory, rank, grant.number)
    started = time.monotonic()
    rows = run_directory / "steps" / f"{grant.number}-{rank}.jsonl"
    with rows.open("a", encoding="utf-8") as stream:
        while step < wanted.get("steps", 4):
            step += 1
            value = (value * 31 + total(step * (rank + 1))) % 1_000_003
            stream.write(json.dumps({"step": step, "value": value}) + "\n")
            stream.flush()
            if step == 1:
                reporter.phase("first step", time.monotonic() - started)
            time.sleep(wanted.get("seconds", 0.0))
            stop = reporter.should_stop()
            if stop or step % wanted.get("every", 2) == 0:
                save(run_directory, rank, step, value)
                total(0)  # every rank waits here until rank 0 has written
                reporter.checkpoint(step, run_directory / "checkpoints" / f"{step}.json")
            if stop:
                return


def make_sum(processes: int) -> Any:
    """Return a function that adds one number per process over the whole mesh."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = np.array(jax.devices())
    mesh = Mesh(devices, ("data",))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    gathered = jax.jit(
        lambda values: values.sum(), out_shardings=NamedSharding(mesh, PartitionSpec())
    )

    def total(number: int) -> int:
        local = np.full(len(devices) // processes, number, np.int32)
        return int(gathered(jax.make_array_from_process_local_data(spread, local)))

    return total


def newest_checkpoint(run_directory: Path) -> tuple[int, int]:
    """Return the newest checkpoint's step and value, or zeros."""
    steps = [int(path.stem) for path in (run_directory / "checkpoints").glob("*.json")]
    if not steps:
        return 0, 0
    saved = json.loads((run_directory / "checkpoints" / f"{max(steps)}.json").read_text())
    return saved["step"], saved["value"]


def save(run_directory: Path, rank: int, step: int, value: int) -> None:
    """Write a checkpoint; rank 0 does it for all."""
    if rank == 0:
        path = run_directory / "checkpoints" / f"{step}.json"
        write_atomically(path, json.dumps({"step": step, "value": value}).encode())


def note_facts(run_directory: Path, rank: int, attempt: int) -> None:
    """Write down what kind of process this is."""
    import jax
    import ray

    facts = {
        "executable": sys.executable,
        "pid": os.getpid(),
        "process_count": jax.process_count(),
        "devices": jax.device_count(),
        "directory": os.getcwd(),
        "runtime_env": dict(ray.get_runtime_context().runtime_env),
        "flags": os.environ.get("XLA_FLAGS", ""),
    }
    path = run_directory / f"facts-{attempt}-{rank}.json"
    write_atomically(path, json.dumps(facts, default=str).encode())
