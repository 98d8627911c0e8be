"""The `anh` command: a table of verbs, each imported only when it is invoked.

`anh --help` reads the table alone, so it costs a Python start and click. A verb appears in the
table once its module exists; the module holds the click command under the name `command`.
"""

import hashlib
import importlib
import os
import sys
from dataclasses import dataclass

import click

from launch import errors
from launch.errors import ExitCode

TRAIN = "train"
CHECK = "check"
SERVE = "serve"
CLUSTER = "cluster"
LEDGER = "chain and ledger"
SECTIONS = (TRAIN, CHECK, SERVE, CLUSTER, LEDGER)


@dataclass(frozen=True, slots=True)
class Verb:
    """One command: its name, its heading in the help, and the line shown there."""

    name: str
    section: str
    summary: str

    @property
    def module(self) -> str:
        """Return the module that holds the command."""
        return f"launch.commands.{self.name}"


VERBS = (
    Verb("train", TRAIN, "Train a model from a YAML file, signed and logged step by step."),
    Verb("resume", TRAIN, "Go on with a run that was stopped."),
    Verb("prove", TRAIN, "Log what a run has signed and write its run proof."),
    Verb("report", TRAIN, "Write one HTML page about a run."),
    Verb("doctor", TRAIN, "Say what would stop a run on this machine, and the fix."),
    Verb("verify", CHECK, "Check a run proof or an opening against a policy, offline."),
    Verb("audit", CHECK, "Re-execute steps of a run and sign what was found."),
    Verb("replay", CHECK, "Make a step again bit for bit; hand it over or serve it."),
    Verb("bisect", CHECK, "Find the first bad step, and the operator at fault in it."),
    Verb("canary", CHECK, "Try auditors with a run that has faults planted in it."),
    Verb("redteam", CHECK, "Attack a contract in every way we know and count what is seen."),
    Verb("show", CHECK, "Print every number of one step, and how to replay it."),
    Verb("diff", CHECK, "Compare two runs and name the first step that differs."),
    Verb("digest", CHECK, "Print the state digest of a step, or predict its cost."),
    Verb("open", CHECK, "Open one tile of a state as a file that anyone can check."),
    Verb("export", CHECK, "Write a record in a format that other tools read."),
    Verb("inspect", CHECK, "Say what a file of ours holds."),
    Verb("policy", CHECK, "Write, print or check a policy."),
    Verb("key", CHECK, "Make and show Ed25519 keys."),
    Verb("log", SERVE, "Make, serve and check a transparency log."),
    Verb("witness", SERVE, "Cosign the heads of logs, each only if it extends the last."),
    Verb("monitor", SERVE, "Sign what a log holds about a contract."),
)


class VerbGroup(click.Group):
    """A group that lists its table under headings and imports a verb only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all verbs."""
        return [verb.name for verb in VERBS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return its command."""
        if all(verb.name != cmd_name for verb in VERBS):
            return None
        verb = next(verb for verb in VERBS if verb.name == cmd_name)
        return importlib.import_module(verb.module).command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or fail with the nearest names."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise click.exceptions.NoSuchCommand(args[0], possibilities=known, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per heading that has verbs."""
        width = max(len(verb.name) for verb in VERBS)
        for section in SECTIONS:
            rows = [(f"{v.name:<{width}}", v.summary) for v in VERBS if v.section == section]
            if rows:
                with formatter.section(section.capitalize()):
                    formatter.write_dl(rows)


def _print_version(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"anh {version('anh-jax')}")
    ctx.exit()


@click.group(
    cls=VerbGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 passed, 1 the checked thing failed, 2 could not run, 3 equivocation.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Print the version.",
)  # fmt: skip
def group() -> None:
    """Train models with JAX so that anyone can check, later and cheaply, what was trained."""


def run(arguments: list[str]) -> int:
    """Run `anh` with `arguments` and return the exit code; errors are one line on stderr."""
    try:
        code = group.main(args=arguments, prog_name="anh", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has gone; without this, Python complains while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.COULD_NOT_RUN
    except SystemExit:
        raise
    except BaseException as error:
        return errors.report(_with_evidence(error), arguments)
    return code if isinstance(code, int) else ExitCode.PASSED


def _with_evidence(error: BaseException) -> BaseException:
    """Keep what shows two stories, where nobody has yet: without the file the finding is lost."""
    evidence = getattr(error, "evidence", None)
    if not isinstance(evidence, bytes):
        return error
    from attest.errors import AttestError, EquivocationError
    from launch.evidence import keep_evidence

    name = f"log.{hashlib.sha256(evidence).hexdigest()[:16]}"
    try:
        return keep_evidence(error, name) if isinstance(error, EquivocationError) else error
    except AttestError:
        return error  # a full disk: the line on the terminal is all there is


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))
