"""The line of rows: from the final record to genesis, and the branches beside it."""

import dataclasses
import shutil

import jax
import pytest

from anh_jax.attested_run import run_id
from anh_jax.audit.run_checks import check_line
from anh_jax.audit.sampling import draw_sample
from anh_jax.audit.transcript import read_transcript
from anh_jax.line import walk_line
from attest import merkle
from attest.envelope import sign
from attest.statements import Line, Step, encode_statement


def test_rows_that_are_not_the_committed_line_fail(honest, audited, trainers) -> None:
    told = trainers.transcript(honest)
    root = merkle.tree_root([merkle.leaf_hash(row) for row in told.line.hashes[:-1]]).hex()
    final = dataclasses.replace(told.final, line=Line(trainers.STEPS + 1, root))
    check = check_line(dataclasses.replace(told, final=final), steps=trainers.STEPS)
    assert check.verdict == "fail" and check.words.endswith("another root")
    found = audited(honest, 3, transcript=dataclasses.replace(told, final=final))
    assert found.line.verdict == "fail"
    assert trainers.only(found).outcome == "withheld"
    assert found.export.verdict == "not checked"


def test_dropped_row_breaks_the_line(honest, trainers) -> None:
    dropped = trainers.transcript(honest).line.rows[6].record_hash
    kept = [e for e in trainers.envelopes(honest) if e.record_hash() != dropped]
    told = read_transcript(kept, run=run_id(honest))
    assert told.fault == "step 8 follows a row that nobody has signed"
    assert check_line(told, steps=trainers.STEPS).verdict == "fail"


def test_renumbered_rows_break_the_line(honest, trainers) -> None:
    run, rows = run_id(honest), [s.row for s in trainers.transcript(honest).line.rows]
    others = [e for e in trainers.envelopes(honest) if b"/attest/step/" not in e.payload]
    attempt = honest.statement("attempt-1").record_hash().hex()
    previous, forged = run, []
    for row in (row for row in rows if row.step != 7):
        row = dataclasses.replace(row, prev=previous)
        previous = row.hash().hex()
        statement = encode_statement(Step(attempt=attempt, row=row))
        forged.append(sign(statement, [honest.key("worker-1-0")]))
    told = read_transcript([*others, *forged], run=run)
    assert told.fault == "the rows of the line do not count 1, 2, 3, ..."


@pytest.fixture(scope="module")
def interrupted(trainers, workshop):
    """Return a function that trains in two attempts: the second takes steps 9 to 13 again."""

    def train(first):
        run = workshop.train(workshop.new_run(), first, stop_after=13)
        shutil.rmtree(run.checkpoints / "step_13")
        return workshop.train(run, trainers.Fault())

    return train


def test_overlapped_step_is_added_and_passes(interrupted, audited, trainers) -> None:
    run = interrupted(trainers.Fault())
    told = trainers.transcript(run)
    assert told.line == walk_line(run, run_id=told.line.run)
    sample = draw_sample(
        told.line, final_record=told.final_record, total=trainers.STEPS, k=1, sources=()
    )
    assert {9, trainers.STEPS} <= set(sample.steps)
    found = audited(run, *sample.steps)
    assert {result.outcome for result in found.results} == {"pass"}
    assert "5 beside it" in found.line.words


def test_stale_branch_that_went_elsewhere_is_refuted(interrupted, audited, trainers) -> None:
    class Early(trainers.Fault):
        def update(self, before, after, step):
            if step != 9:
                return after
            return {**after, "parameters": jax.tree.map(lambda x: x * 2, after["parameters"])}

    run = interrupted(Early())
    told = trainers.transcript(run)
    assert told.line.divergences == (9,)
    result = trainers.only(audited(run, 9))
    assert result.outcome == "refuted"
    assert result.words.startswith("attempt 1, off the line: state root")
