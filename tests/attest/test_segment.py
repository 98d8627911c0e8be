"""A segment commits its rows and no others, and a key cannot honestly have signed two stories."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.envelope import row_hash, sign
from attest.errors import RefusedError
from attest.keys import PrivateKey
from attest.merkle import leaf_hash, verify_inclusion
from attest.segment import RowMark, check_rows, contradiction, mark_of, segment_of, segmented
from attest.statements import (
    Attempt,
    Mesh,
    Row,
    Scalars,
    Segment,
    Step,
    cut_row,
    encode_statement,
)

ONE = "0x1.0000000000000p+0"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


RUN, ATTEMPT = digest("run"), digest("attempt")


def rows(last: int, *, story: str = "") -> list[RowMark]:
    """Return a chain of rows 1 to `last`; another story has other hashes from its start on."""
    made: list[RowMark] = []
    for step in range(1, last + 1):
        prev = made[-1].hash if made else RUN
        made.append(RowMark(step, prev, digest(f"{story}{prev} {step}"), digest(f"state {step}")))
    return made


CHAIN = rows(12)


def cut(first: int, last: int, chain: list[RowMark] = CHAIN) -> Segment:
    return segment_of(RUN, ATTEMPT, chain[first - 1 : last])


def by_step(*marks: RowMark) -> dict[int, RowMark]:
    return {mark.step: mark for mark in marks}


@given(st.sets(st.integers(1, 11)))
def test_rows_cut_anywhere_are_the_segments_rows_and_contradict_nothing(ends: set[int]) -> None:
    places = [0, *sorted(ends), 12]
    segments = [cut(a + 1, b) for a, b in zip(places, places[1:], strict=False)]
    for segment in segments:
        check_rows(segment, CHAIN[segment.first - 1 : segment.last])
    assert contradiction(by_step(*CHAIN), segments) is None
    assert contradiction({}, segments) is None


CHANGED: dict[str, Any] = {
    "root": {"rows_root": digest("other")},
    "prev": {"prev": digest("other")},
    "last row": {"last_row": digest("other")},
    "state": {"state_root": digest("other")},
    "first": {"first": 4},
    "last": {"last": 7},
    "both ends": {"first": 6, "last": 9},
}


@pytest.mark.parametrize("changes", CHANGED.values(), ids=CHANGED.keys())
def test_changed_segment_does_not_fit_its_rows(changes: dict[str, Any]) -> None:
    check_rows(cut(5, 8), CHAIN[4:8])
    with pytest.raises(RefusedError) as refusal:
        check_rows(replace(cut(5, 8), **changes), CHAIN[4:8])
    assert refusal.value.check == "segment rows"


def test_rows_that_do_not_follow_each_other_fit_no_segment() -> None:
    broken = [*CHAIN[4:6], replace(CHAIN[6], prev=digest("elsewhere")), CHAIN[7]]
    with pytest.raises(RefusedError, match="row 7 does not follow row 6"):
        check_rows(segment_of(RUN, ATTEMPT, broken), broken)


@pytest.mark.parametrize("chosen", [CHAIN[4:7], CHAIN[3:8], [*CHAIN[4:7], CHAIN[6]], []])
def test_other_rows_than_the_segments_are_refused(chosen: list[RowMark]) -> None:
    with pytest.raises(RefusedError) as refusal:
        check_rows(cut(5, 8), chosen)
    assert refusal.value.check == "segment rows"


def test_segment_ends_only_where_the_state_is_digested() -> None:
    with pytest.raises(ValueError, match="step 3 has no state root"):
        segment_of(RUN, ATTEMPT, [*CHAIN[:2], replace(CHAIN[2], state_root=None)])
    assert segment_of(RUN, ATTEMPT, [replace(CHAIN[0], state_root=None), *CHAIN[1:3]]).last == 3


def test_row_inside_a_segment_has_a_path_to_its_root() -> None:
    from attest.merkle import inclusion_path

    leaves = [leaf_hash(bytes.fromhex(row.hash)) for row in CHAIN[4:8]]
    root = bytes.fromhex(cut(5, 8).rows_root)
    for index, leaf in enumerate(leaves):
        verify_inclusion(index, 4, leaf, inclusion_path(index, 4, leaves), root)


OTHER = rows(12, story="other ")
STORIES: dict[str, Any] = {
    "the same steps": ({}, [cut(5, 8), cut(5, 8, [*CHAIN[:4], *OTHER[4:]])], "step 5"),
    "overlapping steps": ({}, [cut(5, 8), cut(7, 9)], "step 7"),
    "one inside the other": ({}, [cut(6, 7), cut(5, 8)], "step 6"),
    "an unshared border": ({}, [cut(1, 4), cut(5, 8, OTHER)], "step 5"),
    "another last row": (by_step(OTHER[7]), [cut(5, 8)], "row 8"),
    "another row before": (by_step(OTHER[3]), [cut(5, 8)], "row 4"),
    "another first row": (by_step(OTHER[4]), [cut(5, 8)], "row 5 follows"),
    "another row after": (by_step(OTHER[8]), [cut(5, 8)], "row 9 follows"),
    "another row inside": (
        by_step(*CHAIN[4:6], replace(CHAIN[6], hash=digest("x")), CHAIN[7]),
        [cut(5, 8)],
        "its rows have another root",
    ),
    "another state": (
        by_step(*CHAIN[4:8]),
        [replace(cut(5, 8), state_root=digest("x"))],
        "names another state",
    ),
}


@pytest.mark.parametrize(("told", "segments", "words"), STORIES.values(), ids=STORIES.keys())
def test_two_stories_are_told_apart(
    told: dict[int, RowMark], segments: list[Segment], words: str
) -> None:
    for order in (segments, segments[::-1]):
        found = contradiction(told, order)
        assert found is not None and words in found.words
        # What is named is a contradiction by itself: it is what an evidence file holds.
        kept = {step: told[step] for step in found.steps}
        assert contradiction(kept, found.segments) is not None


def test_a_row_inside_is_not_judged_by_itself() -> None:
    # The root does not say which rows it has: that takes all of them.
    assert contradiction(by_step(OTHER[5]), [cut(5, 8)]) is None


def signed_row(workers: int) -> tuple[Any, list[PrivateKey]]:
    keys = [PrivateKey.generate() for _ in range(workers)]
    scalars = Scalars("0x1.8f5c28f5c28f6p-1", 1, "0x1.0000000000000p+17")
    row = Row(
        run=RUN, step=123_456, prev=digest("prev"), gradient_root=digest("gradient"),
        state_root=digest("state"), batch_root=digest("batch"), scalars=scalars,
        loss="0x1.2c3d70a3d70a4p+18", bound="0x1.a36e2eb1c432dp-14",
    )  # fmt: skip
    return sign(encode_statement(Step(ATTEMPT, row)), keys), keys


def test_mark_of_a_row_is_what_the_row_says() -> None:
    envelope, _ = signed_row(1)
    mark = mark_of(envelope)
    assert mark.hash == row_hash(cut_row(envelope.payload)).hex()
    assert (mark.step, mark.prev, mark.state_root) == (123_456, digest("prev"), digest("state"))
    other = sign(encode_statement(cut(1, 2)), [PrivateKey.generate()])
    with pytest.raises(RefusedError, match="segment stands where a row belongs"):
        mark_of(other)


def test_record_of_256_workers_stays_under_2_kb() -> None:
    step, keys = signed_row(256)
    segment = replace(cut(5, 8), first=999_999_000, last=999_999_255)
    record = sign(encode_statement(segment), keys[:1]).to_bytes()
    assert len(record) < 2_000
    # What it replaces, for each step.
    assert len(step.to_bytes()) > 45_000


def test_attempt_says_whether_its_log_holds_segments() -> None:
    def attempt(**facts: str) -> Attempt:
        return Attempt(RUN, RUN, 1, 0, (digest("key"),), Mesh(1, 1, 1), 1, facts, "start")

    assert segmented(attempt(segments="every 4"))
    assert not segmented(attempt())
    assert not segmented(attempt(segments="off"))
