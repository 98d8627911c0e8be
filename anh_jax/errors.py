"""Errors that leave this room.

Each message is one line that says what happened, where, and what to do about it. `exit_code` is
the command line's: 1 when the thing that was checked failed, 2 when it could not be run.
"""


class AnhError(Exception):
    """Report a failure of training, auditing or loading in one line."""

    exit_code: int = 2

    def __init__(self, message: str) -> None:
        # Compiler and library messages quoted inside ours may span lines; ours may not.
        super().__init__(" ".join(message.split()))


class ConfigError(AnhError):
    """Report a configuration that names something unknown, missing or impossible."""


class ProgramError(AnhError):
    """Report a program that cannot be stored, loaded or accepted."""


class DataError(AnhError):
    """Report examples that are missing, malformed or not those that were committed."""


class RefutedError(AnhError):
    """Report a claim that was checked and does not hold."""

    exit_code: int = 1
