"""Turn whatever a command raises into one line on stderr and an exit code.

0 the check passed, 1 the checked thing failed, 2 the command could not run, 3 evidence of
equivocation was found and written, 130 stopped by Ctrl-C. Tracebacks only with ANH_DEBUG=1.
"""

import enum
import json
import os
import sys
import traceback

import click


class ExitCode(enum.IntEnum):
    """What a command's exit status says."""

    PASSED = 0
    FAILED = 1
    COULD_NOT_RUN = 2
    EQUIVOCATION = 3
    STOPPED = 130


class CommandError(Exception):
    """Raise from a command that cannot run; the message is one line: what, where, what to do."""

    exit_code = ExitCode.COULD_NOT_RUN


class CheckFailed(Exception):
    """Raise from a command whose checked thing failed; the message is one line."""

    exit_code = ExitCode.FAILED


# The first part of a missing module's name -> the extra that brings it.
_TRAIN = (
    "jax jaxlib flax numpy optax orbax grain ray blake3 msgspec ruamel rich safetensors sklearn"
)
_EXTRAS = dict.fromkeys(_TRAIN.split(), "train") | {
    "starlette": "service",
    "uvicorn": "service",
    "httptools": "service",
    "cryptography": "release",
    "web3": "chain",
    "eth_account": "chain",
}
_PURPOSE = {
    "train": "training",
    "service": "service",
    "chain": "chain",
    "release": "signing weights",
}


def debugging() -> bool:
    """Tell whether ANH_DEBUG asks for tracebacks."""
    return os.environ.get("ANH_DEBUG", "") not in ("", "0")


def report(error: BaseException, arguments: list[str]) -> int:
    """Print one line about `error` to stderr and return the exit code.

    With `--json` among the arguments, stdout gets one JSON object with the same message, so that
    a program always finds JSON there.
    """
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()  # a bare `anh` or `anh key`: the help itself is the answer
        return ExitCode.COULD_NOT_RUN
    if debugging():
        traceback.print_exception(error)
    message, code = describe(error, arguments)
    line = one_line(message)
    if "--json" in arguments:
        print(json.dumps({"error": line, "exitCode": int(code)}, sort_keys=True), flush=True)
    print(f"anh: {line}", file=sys.stderr, flush=True)
    return int(code)


def one_line(text: str) -> str:
    """Join the lines of a message and replace what a terminal would obey.

    Messages quote file names and file contents, which others may have written.
    """
    joined = " ".join(text.split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in joined)


def describe(error: BaseException, arguments: list[str]) -> tuple[str, int]:
    """Return the message and the exit code that `error` stands for."""
    verb = _verb(arguments)
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "stopped", ExitCode.STOPPED
    if isinstance(error, click.ClickException):
        return _click_message(error, verb), ExitCode.COULD_NOT_RUN
    # Both rooms' errors carry their exit code; reading it here keeps anh_jax unimported.
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return str(error), code
    if isinstance(error, ImportError):
        return _import_message(error, verb), ExitCode.COULD_NOT_RUN
    if isinstance(error, OSError):
        return _os_message(error), ExitCode.COULD_NOT_RUN
    name = type(error).__name__
    advice = "" if debugging() else "; ANH_DEBUG=1 shows where"
    return f"{verb}: unexpected {name}: {_first_line(error)}{advice}", ExitCode.COULD_NOT_RUN


def _verb(arguments: list[str]) -> str:
    words = [argument for argument in arguments if not argument.startswith("-")]
    return f"anh {words[0]}" if words else "anh"


def _click_message(error: click.ClickException, verb: str) -> str:
    message = error.format_message().strip()
    end = "" if message.endswith((".", "?")) else "."
    context = getattr(error, "ctx", None)
    path = context.command_path if isinstance(context, click.Context) else verb
    return f"{message}{end} See '{path} --help'"


def _import_message(error: ImportError, verb: str) -> str:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None or not isinstance(error, ModuleNotFoundError):
        return f"{verb}: cannot import {package or 'a package'}: {_first_line(error)}"
    return f"{verb} needs the {_PURPOSE[extra]} packages: pip install 'anh-jax[{extra}]'"


_OS_ADVICE: dict[type[OSError], str] = {
    FileNotFoundError: "no such file; check the path",
    IsADirectoryError: "is a directory; name a file in it",
    NotADirectoryError: "a part of the path is not a directory; check the path",
    FileExistsError: "exists already; name another",
    PermissionError: "permission denied; check its owner and mode",
}


def _os_message(error: OSError) -> str:
    reason = next(
        (text for kind, text in _OS_ADVICE.items() if isinstance(error, kind)),
        error.strerror or _first_line(error) or type(error).__name__,
    )
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""
