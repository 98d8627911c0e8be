"""A loop of one's own is announced to be audited by commands alone, while it goes on."""

import shutil
from pathlib import Path
from typing import Any

import jax
import pytest

import anh_jax
import anh_jax.own_loop as own_loop
from anh_jax.run_directory import RunDirectory
from anh_jax.workbench import Workbench
from attest.file_lock import locked
from attest.log.fsck import fsck
from attest.statements import Genesis, Intent, Step
from launch.cli import run

STEPS = 24


@pytest.fixture(scope="module")
def begun(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that takes the steps of a new loop up to one, and the loop."""
    experiment = anh_jax.load_experiment(config, ("plan.kind=native", f"training.steps={STEPS}"))
    prepared = anh_jax.prepare(experiment)
    benches: list[Workbench] = []

    def begin(*, until: int) -> Any:
        root = tmp_path_factory.mktemp("own") / "run"
        loop = own_loop.open_run(prepared, root, bench=benches[0] if benches else None)
        benches[:] = [loop._bench]
        state = jax.tree.map(lambda leaf: leaf, loop.initial_state)

        def go_on(steps: range) -> None:
            nonlocal state
            executor = benches[0].executor
            for step in steps:
                outputs = executor.gradient(state, benches[0].batch(step).pieces)
                state = executor.update(state, outputs, executor.scalars(outputs), step)
                keys = ("gradient", "loss", "statistics")
                loop.step(step, state=state, **{key: outputs[key] for key in keys})

        go_on(range(1, until + 1))
        return loop, lambda: (go_on(range(until + 1, STEPS + 1)), loop.finish())

    return begin


def test_own_loop_that_was_announced_by_command_is_sampled(
    begun, key_home: Path, ask, make_keys, naming, logged
) -> None:
    loop, finish = begun(until=5)
    root = loop.directory
    assert not (root / "log").exists()
    make_keys("alice", "watch")
    who = ("--key", "alice", "--operator", "acme")
    code, told = ask("audit", root, "--intend", *who)
    assert code == 0
    # What was signed so far came first; the rest follows after the end.
    kinds = [type(said) for said in logged(root)]
    assert kinds.count(Step) == 5 and kinds[told["index"]] is Intent and Genesis in kinds
    assert ask("audit", root, "--intend", *who)[1]["intent"] == told["intent"]
    finish()
    assert run(["prove", str(root)]) == 0
    assert [type(said) for said in logged(root)].count(Step) == STEPS
    fsck(root / "log")
    mine = naming(root, "--auditor", "alice=acme", "--monitor", "watch=globex",
                  "--level", "sampled")  # fmt: skip
    code, found = ask("audit", root, "--samples", "4", *who, "--policy", mine)
    assert (code, found["sample"]) == (0, "intents"), found
    assert run(["monitor", str(root), "--once", "--key", "watch", "--operator", "globex"]) == 0
    assert run(["prove", str(root)]) == 0
    code, verdict = ask("verify", root / "run.proof", "--policy", mine)
    assert (code, verdict["level"]) == (0, "sampled"), verdict


def test_own_loop_that_is_over_is_announced_to_nobody(
    begun, key_home: Path, ask, make_keys
) -> None:
    loop, finish = begun(until=STEPS)
    finish()
    make_keys("alice")
    who = ("--key", "alice", "--operator", "acme")
    code, answer = ask("audit", loop.directory, "--intend", *who)
    assert code == 2
    # And no log was made in vain.
    assert "an intent comes before" in answer["error"] and not (loop.directory / "log").exists()


def test_run_that_somebody_drives_is_left_to_him(
    going: Path, ask, make_keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(going / "log")
    make_keys("alice")
    monkeypatch.setattr("launch.announcement._PATIENCE", 0.0)
    with locked(going / "driver.lock"):
        code, answer = ask("audit", going, "--intend", "--key", "alice", "--operator", "acme")
    assert code == 2 and "another process holds the run" in answer["error"]
    assert not RunDirectory.open(going).log.exists()
