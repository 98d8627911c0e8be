"""`anh monitor`: sign what a log holds about a contract, so that omissions show."""

import time
from typing import TYPE_CHECKING, Any

import click

from launch.errors import ExitCode
from launch.output import Form, emit, json_option, printable

if TYPE_CHECKING:
    from launch.status_log import Signed


@click.command(name="monitor")
@click.argument("directory", metavar="D|URL")
@click.option("--once", is_flag=True, help="Sign one status now and end.")
@click.option("--every", type=click.FloatRange(min=0.1), default=60.0, show_default=True,
              help="Seconds between looks, without --once.")  # fmt: skip
@click.option("--key", metavar="K", help="Your monitor key: a name or a file; default D's own.")
@click.option("--operator", metavar="O", help="The name that policies give your key.")
@click.option("--witness", "witnesses", multiple=True, metavar="'VKEY URL'",
              help="Hold a served log against what this witness saw; repeatable.")  # fmt: skip
@json_option
def command(
    *,
    directory: str,
    once: bool,  # click hands flags over as bools
    every: float,
    key: str | None,
    operator: str | None,
    witnesses: tuple[str, ...],
    form: Form,
) -> int:
    """Sign what a log holds about a contract.

    Reads the whole log of the run directory (or log directory) D, or the one served at URL, signs a
    status, and appends it. What a served log showed before is remembered, and it must extend that.
    A client that trusts the monitor then sees whether a proof leaves something out. Without --once
    it signs again whenever the log has grown.
    """
    from launch.status_log import StatusLog, monitor_name

    who = monitor_name(directory, key, operator)
    with StatusLog(directory, witnesses) as log:
        seen = 0
        while True:
            log.compare()
            size = log.size
            if once or log.news_since(seen):
                signed = log.sign(who)
                emit(form, _document(signed), [text for found in signed for text in _lines(found)])
                if once:
                    accused = any(found.accused for found in signed)
                    return ExitCode.EQUIVOCATION if accused else ExitCode.PASSED
            seen = size
            time.sleep(every)


def _document(signed: "list[Signed]") -> dict[str, Any]:
    return {
        "statuses": [
            {
                "contract": s.contract,
                "size": s.size,
                "index": s.index,
                "runs": s.runs,
                "twoStories": [str(error) for error in s.accused],
            }
            for s in signed
        ]
    }


def _lines(found: "Signed") -> list[str]:
    runs = f"{found.runs} run{'' if found.runs == 1 else 's'}"
    status = (
        f"status of contract {found.contract[:16]}... ({runs}) as of size {found.size:,}, "
        f"logged at index {found.index:,}"
    )
    return [status, *(printable(f"two stories: {error}") for error in found.accused)]
