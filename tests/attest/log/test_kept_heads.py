"""Checkpoints that a status names outlive the server that published them; others do not."""

from pathlib import Path

import pytest

from attest.log import kept_heads
from attest.log.kept_heads import KeptHeads


def test_named_checkpoint_is_kept_for_good_and_others_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_heads, "_MOST", 3)
    kept = KeptHeads(tmp_path / "heads")
    for size in range(1, 6):
        kept.saw(size, b"note %d" % size)
        kept.keep([size] if size == 2 else [])
    kept.keep([1, 99])  # long gone, and never there
    assert [kept.find(size) for size in (1, 2, 3, 5)] == [None, b"note 2", b"note 3", b"note 5"]
    again = KeptHeads(tmp_path / "heads")
    assert [again.find(size) for size in (2, 3)] == [b"note 2", None]
