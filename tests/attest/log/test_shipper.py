"""Shipping: what hosts have signed reaches the log once, in order, or the run hears why not."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.checkpoint import open_checkpoint
from attest.envelope import Envelope, sign
from attest.errors import FormatError, InputError, RefusedError
from attest.log import joiner
from attest.log.fsck import fsck
from attest.log.joiner import DivergenceError
from attest.log.sequencer import LocalLog
from attest.log.shipper import Progress, Shipper
from attest.statements import Step, decode_statement


@pytest.fixture
def run(run_directory: Path, lab: ModuleType, hosts: ModuleType) -> Any:
    started = hosts.Run(run_directory, lab, lab.Lab(workers=2))
    started.begin(1)
    return started


def steps_of(log: LocalLog) -> list[tuple[int, int]]:
    """Return number of signatures and step of every step in the log, by index."""
    statements = [(e, decode_statement(e.payload)) for e in log.entries(0, log.size)]
    return [(len(e.signatures), s.row.step) for e, s in statements if isinstance(s, Step)]


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_everything_signed_is_logged_in_order_and_checkpointed(run: Any, log: LocalLog):
    run.train(1, 1, 300)
    assert Shipper(run.directory, log).drain() == Progress(300, 300, 300)
    assert steps_of(log) == [(2, step) for step in range(1, 301)]
    assert log.index_of(run.trainer.genesis.record_hash()) == 1
    assert open_checkpoint(log.published(), log.names.log).size == 303
    fsck(run.directory / "log")


def test_shipping_again_adds_nothing(run: Any, log: LocalLog):
    run.train(1, 1, 5)
    shipper = Shipper(run.directory, log)
    shipper.drain()
    note = log.published()
    assert shipper.drain() == Shipper(run.directory, log).drain() == Progress(5, 5, 5)
    assert (log.size, log.published()) == (8, note)


def test_row_waits_for_the_last_hosts_signature(run: Any, log: LocalLog):
    run.train(1, 1, 3)
    run.train(1, 4, 6, ranks=[1])
    shipper = Shipper(run.directory, log)
    assert shipper.drain() == Progress(6, 3, 3)
    assert shipper.lag == 3
    run.write(1, 0, [sign(run.trainer.steps[1][4].payload, [run.lab.key("lab worker-1-0")])])
    assert shipper.drain() == Progress(6, 4, 4)


def test_resumed_attempt_follows_the_row_it_resumes_from(run: Any, log: LocalLog):
    run.train(1, 1, 5)
    run.begin(2, after=(1, 3))
    run.train(2, 4, 6)
    run.begin(10, after=(2, 6))
    run.train(10, 7, 7)
    Shipper(run.directory, log).drain()
    assert [step for _, step in steps_of(log)] == [1, 2, 3, 4, 5, 4, 5, 6, 7]


def test_final_is_shipped_by_drain_after_all_steps(run: Any, log: LocalLog):
    run.train(1, 1, 4)
    run.state("final", run.trainer.final(4))
    Shipper(run.directory, log).drain()
    assert log.index_of(run.trainer.final(4).record_hash()) == log.size - 1
    run.train(1, 5, 5)
    with pytest.raises(RefusedError) as refusal:
        Shipper(run.directory, log).drain()
    assert refusal.value.check == "run-closed"


@pytest.mark.parametrize("changed", ["state_root", "gradient_root"])
def test_hosts_that_diverge_stop_the_run_and_are_named(run: Any, log: LocalLog, changed: str):
    run.train(1, 1, 2)
    run.write(1, 0, [run.row(1, 0, 3)])
    run.write(1, 1, [run.row(1, 1, 3, **{changed: run.lab.digest("gone another way")})])
    shipper = Shipper(run.directory, log)
    with pytest.raises(DivergenceError, match="step 3") as divergence:
        shipper.drain()
    assert (divergence.value.step, divergence.value.exit_code) == (3, 1)
    assert len(divergence.value.ranks) == 1
    assert changed in str(divergence.value)
    assert "\n" not in str(divergence.value)


def test_the_odd_host_of_three_is_the_one_named(
    run_directory: Path, lab: ModuleType, log: LocalLog, hosts: ModuleType
):
    run = hosts.Run(run_directory, lab, lab.Lab(workers=3))
    run.begin(1)
    for rank, root in enumerate(("same", "other", "same")):
        run.write(1, rank, [run.row(1, rank, 1, state_root=lab.digest(root))])
    with pytest.raises(DivergenceError, match="host 1 signed another row than host 0, 2") as caught:
        Shipper(run_directory, log).drain()
    assert caught.value.ranks == (1,)


def test_divergence_in_the_thread_is_raised_by_check_and_drain(run: Any, log: LocalLog):
    run.train(1, 1, 2)
    with Shipper(run.directory, log, poll_seconds=0.01) as shipper:
        wait_for(lambda: shipper.progress.logged == 2)
        shipper.check()
        run.write(1, 0, [run.row(1, 0, 3)])
        run.write(1, 1, [run.row(1, 1, 3, loss="0x1.8000000000000p+3")])
        with pytest.raises(DivergenceError):
            wait_for(shipper.check)
        with pytest.raises(DivergenceError):
            shipper.drain()
    assert log.size == 5


def test_thread_logs_and_checkpoints_while_the_run_goes_on(run: Any, log: LocalLog):
    shipper = Shipper(run.directory, log, checkpoint_seconds=0.2, poll_seconds=0.01)
    with shipper:
        for step in range(1, 6):
            run.train(1, step, step)
            wait_for(lambda step=step: shipper.progress.logged == step)
        wait_for(lambda: shipper.progress.checkpointed == 5)
        assert shipper.lag == 0
    assert open_checkpoint(log.published(), log.names.log).size == 8


def test_checkpoints_are_no_more_frequent_than_asked(
    run: Any, log: LocalLog, monkeypatch: pytest.MonkeyPatch
):
    times: list[float] = []
    monkeypatch.setattr(log, "checkpoint", lambda: times.append(time.monotonic()))
    with Shipper(run.directory, log, checkpoint_seconds=0.15, poll_seconds=0.001) as shipper:
        for step in range(1, 40):
            run.train(1, step, step)
            time.sleep(0.01)
        wait_for(lambda: shipper.progress.checkpointed == 39)
    assert len(times) > 1
    assert min(b - a for a, b in zip(times, times[1:], strict=False)) >= 0.15


def test_row_is_sent_only_after_its_file_was_synced_with_it(
    run: Any, log: LocalLog, monkeypatch: pytest.MonkeyPatch
):
    run.train(1, 1, 3)
    files = {rank: run.directory / "steps" / f"1-{rank}.jsonl" for rank in (0, 1)}
    later = {path: run.row(1, rank, 4).to_bytes() + b"\n" for rank, path in files.items()}
    synced: dict[str, int] = {}
    sync, append = os.fdatasync, log.append

    def watched_sync(descriptor: int) -> None:
        sync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        synced[path] = os.fstat(descriptor).st_size
        # The host goes on writing right behind the sync: those rows must wait for the next one.
        if path == str(files[1]):
            for file, line in later.items():
                file.write_bytes(file.read_bytes() + line)

    def watched_append(envelopes: list[Envelope], **options: Any) -> list[int]:
        for envelope in envelopes:
            for path in files.values():
                lines = path.read_bytes()[: synced.get(str(path), 0)].splitlines()
                payloads = [Envelope.from_bytes(line).payload for line in lines]
                if b"/step/v1" in envelope.payload:
                    assert envelope.payload in payloads
        return append(envelopes, **options)

    monkeypatch.setattr(joiner.os, "fdatasync", watched_sync)
    monkeypatch.setattr(log, "append", watched_append)
    shipper = Shipper(run.directory, log)
    assert shipper._ship()
    monkeypatch.undo()
    assert [step for _, step in steps_of(log)] == [1, 2, 3]
    assert shipper.drain().logged == 4


def test_file_cut_behind_the_log_and_signed_anew_is_refused(run: Any, log: LocalLog):
    run.train(1, 1, 3)
    Shipper(run.directory, log).drain()
    for rank in (0, 1):
        path = run.directory / "steps" / f"1-{rank}.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
        run.write(1, rank, [run.row(1, rank, 3, loss="0x1.8000000000000p+3")])
    with pytest.raises(RefusedError) as refusal:
        Shipper(run.directory, log).drain()
    assert refusal.value.check == "step-conflict"


def test_row_by_another_hosts_key_is_named(run: Any, log: LocalLog):
    run.write(1, 0, [run.row(1, 1, 1)])
    run.write(1, 1, [run.row(1, 1, 1)])
    with pytest.raises(FormatError, match=r"1-0\.jsonl: row 1 is not signed by this host's key"):
        Shipper(run.directory, log).drain()


def test_row_with_a_bad_signature_is_refused_by_the_log(run: Any, log: LocalLog):
    good = run.row(1, 0, 1)
    bad = Envelope(good.payload, (type(good.signatures[0])(good.signatures[0].keyid, bytes(64)),))
    run.write(1, 0, [bad])
    run.write(1, 1, [run.row(1, 1, 1)])
    with pytest.raises(RefusedError) as refusal:
        Shipper(run.directory, log).drain()
    assert refusal.value.check == "signature"


def test_step_file_with_another_kind_of_record_is_refused(run: Any, log: LocalLog):
    names = run.trainer.worker_names(1)
    for rank, target in enumerate(("one", "two")):
        payload = run.trainer.intent("acme", target=run.lab.digest(target)).payload
        run.write(1, rank, [sign(payload, [run.lab.key(names[rank])])])
    with pytest.raises(FormatError, match="record of kind intent"):
        Shipper(run.directory, log).drain()


def test_torn_last_line_is_left_for_later(run: Any, log: LocalLog):
    run.train(1, 1, 2)
    path = run.directory / "steps" / "1-0.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    shipper = Shipper(run.directory, log)
    assert shipper.drain().logged == 1
    path.write_bytes(whole)
    assert shipper.drain().logged == 2


def test_disk_that_fails_is_tried_again_and_no_row_is_lost(
    run: Any, log: LocalLog, monkeypatch: pytest.MonkeyPatch
):
    run.train(1, 1, 3)
    append, failures = log.append, [InputError("no space left")]

    def full_once(envelopes: list[Envelope], **options: Any) -> list[int]:
        if envelopes and b"/step/v1" in envelopes[0].payload and failures:
            raise failures.pop()
        return append(envelopes, **options)

    monkeypatch.setattr(log, "append", full_once)
    monkeypatch.setattr("attest.log.shipper._RETRY_SECONDS", 0.3)
    with Shipper(run.directory, log, poll_seconds=0.01) as shipper:
        wait_for(lambda: shipper.trouble is not None)
        shipper.check()
        wait_for(lambda: shipper.progress.logged == 3)
        wait_for(lambda: shipper.trouble is None)
    assert [step for _, step in steps_of(log)] == [1, 2, 3]
    failures.append(InputError("no space left"))
    run.train(1, 4, 4)
    shipper = Shipper(run.directory, log)
    with pytest.raises(InputError):
        shipper.drain()
    assert shipper.drain().logged == 4


def test_statement_files_that_are_wrong_are_named(run: Any, log: LocalLog, run_directory: Path):
    path = run_directory / "statements" / "attempt-1.json"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(FormatError, match=r"attempt-1\.json"):
        Shipper(run.directory, log).drain()
    path.rename(run_directory / "statements" / "attempt-3.json").write_bytes(good)
    with pytest.raises(FormatError, match="attempt 3"):
        Shipper(run.directory, log).drain()


def test_author_key_is_read_from_the_run_or_given(run: Any, log: LocalLog, lab: ModuleType):
    (run.directory / "keys" / "author").unlink()
    with pytest.raises(InputError, match="author"):
        Shipper(run.directory, log).drain()
    Shipper(run.directory, log, author=lab.key("owner").public).drain()
    assert log.size == 3
    # Once the contract is in the log, nobody needs the key again.
    Shipper(run.directory, log).drain()


def test_directory_without_statements_yet_is_no_error(tmp_path: Path, log: LocalLog):
    assert Shipper(tmp_path / "empty", log).drain() == Progress(0, 0, 0)


_TRAIN_AND_SHIP = """
import importlib.util, sys
from pathlib import Path
from attest.log.sequencer import LocalLog
from attest.log.shipper import Shipper
from attest.step_file import StepFile

here, directory = Path(sys.argv[1]), Path(sys.argv[2])
spec = importlib.util.spec_from_file_location("lab", here / "lab.py")
lab = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lab)
trainer = lab.Lab()
trainer.opening()
with (
    LocalLog.open(directory / "log") as log,
    Shipper(directory, log, checkpoint_seconds=0.05, poll_seconds=0.01),
    StepFile(directory / "steps" / "1-0.jsonl") as file,
):
    for step in range(1, 5000):
        file.append(trainer.step(1, step))
        print(step, flush=True)
"""


def test_run_killed_while_shipping_loses_no_row_and_logs_none_twice(
    run_directory: Path, lab: ModuleType, log: LocalLog, hosts: ModuleType
):
    run = hosts.Run(run_directory, lab, lab.Lab())
    run.begin(1)
    log.close()
    process = subprocess.Popen(
        [sys.executable, "-c", _TRAIN_AND_SHIP, str(Path(__file__).parent), str(run_directory)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    assert process.stdout is not None
    for _ in range(400):
        line = process.stdout.readline()
    process.kill()
    rest, _ = process.communicate(timeout=60)
    signed = int([line, *rest.split("\n")[:-1]][-1])
    with LocalLog.open(run_directory / "log") as again:
        assert 0 < len(steps_of(again)) <= signed + 1
        shipped = Shipper(run_directory, again).drain()
        assert shipped.logged >= signed
        assert steps_of(again) == [(1, step) for step in range(1, shipped.logged + 1)]
    fsck(run_directory / "log")
