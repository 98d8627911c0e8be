import pickle

import pytest

from attest.errors import (
    AttestError,
    EquivocationError,
    FormatError,
    InputError,
    RefusedError,
    UnsupportedError,
)

EXIT_CODES = {
    AttestError: 2,
    InputError: 2,
    FormatError: 1,
    UnsupportedError: 2,
    RefusedError: 1,
    EquivocationError: 3,
}


@pytest.mark.parametrize("error", EXIT_CODES, ids=lambda e: e.__name__)
def test_each_error_has_its_documented_exit_code(error: type[AttestError]) -> None:
    assert error("x").exit_code == EXIT_CODES[error]
    assert issubclass(error, AttestError)


@pytest.mark.parametrize("hostile", ["a\nb", "a\r\nb", "\x1b[2J", "a\x00b", "a\u2028b", "\x9b31m"])
def test_hostile_text_cannot_steer_the_terminal_or_add_a_line(hostile: str) -> None:
    for error in EXIT_CODES:
        message = str(error(hostile))
        assert message.isprintable()
        assert len(message.splitlines()) == 1
    assert str(InputError("caf\u00e9 is printable")) == "caf\u00e9 is printable"


@pytest.mark.parametrize(
    "error",
    [
        FormatError("m", code="c"),
        RefusedError("m", check="c"),
        EquivocationError("m", evidence="path"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_cross_a_process_border_whole(error: AttestError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.__dict__ == error.__dict__
    assert str(copy) == "m"
