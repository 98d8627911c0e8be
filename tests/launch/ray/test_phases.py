from pathlib import Path

from launch.attempt_files import AttemptFiles
from launch.phases import PhaseLog, PhaseReader


def test_phases_come_in_order_of_time_whoever_noted_them(tmp_path: Path) -> None:
    files = AttemptFiles(tmp_path)
    # The group's file sorts after a rank's, yet its mesh is formed before the rank goes on.
    PhaseLog(files, "g1", "group").add("mesh formed", 1.0)
    PhaseLog(files, "g1", "0").add("program loaded", 2.0)
    PhaseLog(files, "g1", "group").add("afterwards", 3.0)
    names = [phase.name for phase in PhaseReader(files).new()]
    assert names == ["mesh formed", "program loaded", "afterwards"]


def test_a_phase_is_told_once_and_a_torn_line_waits(tmp_path: Path) -> None:
    files = AttemptFiles(tmp_path)
    log, reader = PhaseLog(files, "g1", "0"), PhaseReader(files)
    log.add("first", 1.0)
    path = files.phases("g1", "0")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:10])
    assert [phase.name for phase in reader.new()] == ["first"]
    path.write_bytes(whole + whole)
    assert [phase.name for phase in reader.new()] == ["first"]
    assert list(reader.new()) == []
