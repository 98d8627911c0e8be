"""Errors of the attestation room: one line that says what, where and what to do."""


def _one_line(message: str) -> str:
    """Escape what is not printable: text of a checked file must not steer the reader's terminal."""
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)


class AttestError(Exception):
    """Report that a check could not run; the base of every error raised in this package."""

    exit_code: int = 2

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class InputError(AttestError):
    """Report a missing file, a full disk, a bad flag: nothing was judged."""

    exit_code = 2


class FormatError(AttestError):
    """Report malformed or non-canonical bytes; `code` is a short stable name of the broken rule."""

    exit_code = 1

    def __init__(self, message: str, *, code: str = "malformed") -> None:
        super().__init__(message)
        self.code = code


class UnsupportedError(FormatError):
    """Report bytes that are well formed but that this version cannot judge."""

    exit_code = 2


class RefusedError(AttestError):
    """Say a verifier's "no"; `check` is the short name of the check that failed."""

    exit_code = 1

    def __init__(self, message: str, *, check: str = "refused") -> None:
        super().__init__(message)
        self.check = check


class EquivocationError(AttestError):
    """Report two signed statements that cannot both be honest; `evidence` is a path or object."""

    exit_code = 3

    def __init__(self, message: str, *, evidence: object = None) -> None:
        super().__init__(message)
        self.evidence = evidence
