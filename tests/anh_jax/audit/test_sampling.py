"""Which steps are drawn, from what, and what is always added."""

import hashlib
from dataclasses import dataclass

import pytest

from anh_jax.audit.sampling import chosen_sample, draw_sample, overlaps
from anh_jax.errors import ConfigError
from anh_jax.line import Line, SignedRow
from attest.sample import sample_steps
from attest.statements import Row, Scalars, Source

RUN = hashlib.sha256(b"run").digest()
FINAL = "f" * 64


@dataclass(frozen=True)
class Attempted:
    """Rows first..last of one attempt, made from the rows before."""

    attempt: int
    first: int
    last: int


def rows_of(attempted: Attempted, previous: str, mark: str = "") -> list[SignedRow]:
    rows: list[SignedRow] = []
    for step in range(attempted.first, attempted.last + 1):
        row = Row(
            run=RUN.hex(),
            step=step,
            prev=previous,
            gradient_root=hashlib.sha256(f"{step}{mark}".encode()).hexdigest(),
            state_root="a" * 64,
            batch_root="b" * 64,
            scalars=Scalars((1.0).hex(), 1, (4.0).hex()),
            loss=(1.0).hex(),
            bound=None,
        )
        record = hashlib.sha256(f"{step} {attempted.attempt}".encode()).digest()
        rows.append(SignedRow(row, row.hash(), record, attempted.attempt))
        previous = row.hash().hex()
    return rows


def line_with_branch(mark: str = "") -> Line:
    """Return a line of 20 rows; attempt 1 took steps 6 to 9 beside it, differently if marked."""
    early = rows_of(Attempted(1, 1, 5), RUN.hex())
    fork = early[-1].row_hash.hex()
    stale = rows_of(Attempted(1, 6, 9), fork, mark)
    later = rows_of(Attempted(2, 6, 20), fork)
    return Line(RUN, (*early, *later), tuple(stale), ())


def source(name: str) -> Source:
    return Source(
        intent=hashlib.sha256(f"intent {name}".encode()).hexdigest(),
        keyid=hashlib.sha256(f"key {name}".encode()).hexdigest(),
        nonce=hashlib.sha256(f"nonce {name}".encode()).hexdigest(),
    )


def test_sample_is_the_protocols_and_adds_last_and_overlapped_step() -> None:
    sources = [source("a"), source("b")]
    sample = draw_sample(line_with_branch(), final_record=FINAL, total=20, k=3, sources=sources)
    nonces = {s.keyid: bytes.fromhex(s.nonce) for s in sources}
    drawn = sample_steps(RUN, bytes.fromhex(FINAL), nonces, 20, 3)
    assert sample.steps == tuple(sorted({*drawn, 20, 6}))
    assert sample.kind == "intents"
    assert [s.keyid for s in sample.sources] == sorted(s.keyid for s in sources)


def test_sample_without_a_nonce_is_called_self_sampled() -> None:
    sample = draw_sample(line_with_branch(), final_record=FINAL, total=20, k=3, sources=[])
    assert (sample.kind, sample.sources) == ("self", ())


def test_another_nonce_or_final_draws_other_steps() -> None:
    line = line_with_branch()
    draws = {
        draw_sample(line, final_record=final, total=20, k=5, sources=[source(name)]).steps
        for final in (FINAL, "e" * 64)
        for name in "abc"
    }
    assert len(draws) == 6


def test_more_samples_than_steps_are_all_steps() -> None:
    sample = draw_sample(line_with_branch(), final_record=FINAL, total=20, k=99, sources=[])
    assert (sample.k, sample.steps) == (20, tuple(range(1, 21)))


def test_chosen_steps_are_no_sample_and_must_exist() -> None:
    sample = chosen_sample([7, 3, 7], total=20)
    assert (sample.kind, sample.k, sample.steps) == ("chosen", 2, (3, 7))
    for wrong in ([0], [21], []):
        with pytest.raises(ConfigError, match="choose some of 1 to 20"):
            chosen_sample(wrong, total=20)


def test_first_shared_step_of_each_branch_is_judged_beside_the_line() -> None:
    found = overlaps(line_with_branch("other"))
    assert {step: [r.attempt for r in rows] for step, rows in found.items()} == {6: [1]}


def test_branch_from_another_state_is_passed_over() -> None:
    line = line_with_branch()
    foreign = rows_of(Attempted(1, 8, 9), "c" * 64)
    assert overlaps(Line(RUN, line.rows, tuple(foreign), ())) == {}
