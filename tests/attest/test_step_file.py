from pathlib import Path

import pytest

from attest.envelope import Envelope, sign, verify_signatures
from attest.errors import FormatError, InputError, RefusedError
from attest.keys import PrivateKey
from attest.step_file import StepFile, SyncPolicy, read, read_lines, recover

KEY = PrivateKey(bytes(32))
EVERY_RECORD = SyncPolicy(records=1)


def envelope(number: int) -> Envelope:
    return sign(b'{"step":%d}' % number, [KEY])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1-0.jsonl"


def write(path: Path, numbers: range) -> None:
    with StepFile(path) as file:
        for number in numbers:
            file.append(envelope(number))


def payloads(path: Path) -> list[bytes]:
    return [e.payload for e in read(path)]


def expected(numbers: range) -> list[bytes]:
    return [b'{"step":%d}' % number for number in numbers]


def test_what_was_appended_reads_back_in_order(path: Path) -> None:
    write(path, range(100))
    assert payloads(path) == expected(range(100))
    assert path.read_bytes() == b"".join(envelope(i).to_bytes() + b"\n" for i in range(100))


def test_a_new_writer_goes_on_after_the_old_one(path: Path) -> None:
    write(path, range(3))
    write(path, range(3, 5))
    assert payloads(path) == expected(range(5))


def test_an_empty_file_holds_no_record(path: Path) -> None:
    write(path, range(0))
    assert payloads(path) == []
    assert recover(path) == 0


def test_reading_sees_a_record_as_soon_as_append_returns(path: Path) -> None:
    with StepFile(path, SyncPolicy(records=1000, seconds=1000)) as file:
        for number in range(3):
            file.append(envelope(number))
            assert len(payloads(path)) == number + 1


def test_reading_goes_on_from_the_end_of_a_line(path: Path) -> None:
    write(path, range(3))
    ends = [line.end for line in read_lines(path)]
    assert ends[-1] == path.stat().st_size
    write(path, range(3, 6))
    later = [line.envelope.payload for line in read_lines(path, start=ends[-1])]
    assert later == expected(range(3, 6))
    assert list(read_lines(path, start=path.stat().st_size)) == []


def test_reading_from_the_middle_of_a_line_is_refused(path: Path) -> None:
    write(path, range(3))
    with pytest.raises(FormatError) as refusal:
        list(read_lines(path, start=5))
    assert f"{path}, line 1 after byte 5" in str(refusal.value)


def test_an_envelope_with_two_signatures_is_refused(path: Path) -> None:
    joint = sign(b"{}", [KEY, PrivateKey.generate()])
    with StepFile(path) as file, pytest.raises(FormatError):
        file.append(joint)
    path.write_bytes(joint.to_bytes() + b"\n")
    with pytest.raises(FormatError) as refusal:
        payloads(path)
    assert f"{path}, line 1" in str(refusal.value)


def test_a_torn_last_line_is_ignored_wherever_it_tore(path: Path) -> None:
    write(path, range(3))
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert payloads(path) == expected(range(2)), cut


def test_recovery_cuts_the_torn_line_and_nothing_else(path: Path) -> None:
    write(path, range(3))
    whole = path.read_bytes()
    for torn in (b"x", whole[:50], b"\x00" * 4096, b"y" * 70_000, b"z" * 65_536):
        path.write_bytes(whole + torn)
        assert recover(path) == len(torn)
        assert path.read_bytes() == whole
    for whole, torn in ((b"", b"y" * 70_000), (b"\n", b"y" * 65_535), (b"\n", b"y" * 100)):
        path.write_bytes(whole + torn)
        assert recover(path) == len(torn)
        assert path.read_bytes() == whole


def test_a_writer_does_not_go_on_behind_a_torn_line(path: Path) -> None:
    write(path, range(3))
    with open(path, "ab") as file:
        file.write(b'{"payload"')
    with pytest.raises(InputError) as refusal:
        StepFile(path)
    assert "recover" in str(refusal.value)
    recover(path)
    write(path, range(3, 4))
    assert payloads(path) == expected(range(4))


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("damage", ["bit", "blank line", "joined", "nul page"])
def test_any_other_damage_is_named_by_file_and_line(path: Path, at: int, damage: str) -> None:
    write(path, range(3))
    lines = path.read_bytes().splitlines(keepends=True)
    line = lines[at]
    lines[at] = {
        "bit": bytes([line[0] ^ 1]) + line[1:],
        "blank line": b"\n" + line,
        "joined": line[:-1] + lines[at],
        "nul page": bytes(len(line) - 1) + b"\n",
    }[damage]
    path.write_bytes(b"".join(lines))
    with pytest.raises(FormatError) as refusal:
        payloads(path)
    assert f"{path}, line {at + 1}:" in str(refusal.value)


def test_every_changed_byte_is_noticed_by_reading_or_by_verifying(path: Path) -> None:
    write(path, range(2))
    whole = path.read_bytes()
    first = whole.index(b"\n")
    for i in range(first + 1):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        try:
            envelopes = list(read(path))
        except FormatError:
            continue
        with pytest.raises(RefusedError):
            for changed in envelopes:
                verify_signatures(changed, {KEY.keyid: KEY.public})


def test_an_endless_line_is_refused_without_reading_it_all(path: Path) -> None:
    path.write_bytes(b"x" * 70_000)
    with pytest.raises(FormatError) as refusal:
        payloads(path)
    assert refusal.value.code == "too large"
    assert f"{path}, line 1" in str(refusal.value)


def test_a_torn_line_may_be_as_long_as_an_envelope(path: Path) -> None:
    write(path, range(1))
    with open(path, "ab") as file:
        file.write(b"x" * 65_535)
    assert payloads(path) == expected(range(1))


def test_the_largest_envelope_fits_a_line(path: Path) -> None:
    room = 65_535 - len(sign(b"", [KEY]).to_bytes())
    large = sign(bytes(room // 4 * 3), [KEY])
    with StepFile(path) as file:
        file.append(large)
        file.append(envelope(1))
    assert [e.payload for e in read(path)] == [large.payload, envelope(1).payload]


def test_two_writers_cannot_hold_one_file(path: Path) -> None:
    with StepFile(path):
        with pytest.raises(InputError) as refusal:
            StepFile(path)
        assert "another process" in str(refusal.value)
        with pytest.raises(InputError):
            recover(path)
    write(path, range(1))


def test_missing_or_unwritable_paths_are_input_errors(tmp_path: Path) -> None:
    for attempt in (
        lambda: StepFile(tmp_path / "missing" / "x"),
        lambda: StepFile(tmp_path),
        lambda: recover(tmp_path / "missing"),
        lambda: list(read(tmp_path / "missing")),
        lambda: list(read(tmp_path)),
    ):
        with pytest.raises(InputError) as failure:
            attempt()
        assert len(str(failure.value).splitlines()) == 1


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError):
        StepFile(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_a_closed_file_takes_no_record(path: Path) -> None:
    file = StepFile(path)
    file.close()
    file.close()
    for use in (file.sync, lambda: file.append(envelope(1))):
        with pytest.raises(InputError):
            use()
