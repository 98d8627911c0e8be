"""A long check says how far it is; a short one says nothing."""

import pytest

from launch.fsck_progress import FsckProgress


def test_a_line_comes_every_ten_seconds(capsys: pytest.CaptureFixture[str]):
    now = [100.0]
    progress = FsckProgress(lambda: now[0])
    for seconds, done in ((1.0, 1000), (9.9, 9900)):
        now[0] = 100.0 + seconds
        progress.reached(done, 30_000)
    assert capsys.readouterr().err == ""
    now[0] = 110.0
    progress.reached(10_000, 30_000)
    line = "checked 10,000 of 30,000 entries, 1,000 a second, 20 s to go\n"
    assert capsys.readouterr().err == line
    now[0] = 115.0
    progress.reached(15_000, 30_000)
    assert capsys.readouterr().err == ""
    now[0] = 120.0
    progress.reached(20_000, 30_000)
    assert capsys.readouterr().err.startswith("checked 20,000")
