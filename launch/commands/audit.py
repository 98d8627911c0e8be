"""`anh audit`: re-execute steps of a run and sign what was found."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launch.compile_cache import set_compile_cache
from launch.errors import CommandError
from launch.output import Form, emit, json_option

if TYPE_CHECKING:
    from anh_jax.workbench import MeshSizes
    from launch.announcement import Announcement

_AXES = ("data", "fsdp", "tensor")


@click.command(name="audit")
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@click.option("--intend", is_flag=True, help="Before the final: announce an audit, no more.")
@click.option("--samples", type=click.IntRange(min=1), metavar="K",
              help="Steps to draw; default 8 or the policy's least k.")  # fmt: skip
@click.option("--steps", metavar="3,7", help="Steps of your choice; such an audit is no sample.")
@click.option("--mesh", metavar="data=2", help="Compare within bounds on this mesh besides.")
@click.option("--states", metavar="DIR|URL",
              help="Take states from here alone: anh replay --out or --serve.")  # fmt: skip
@click.option("--key", metavar="K", help="Your auditor key: a name or a file; default D's own.")
@click.option("--operator", metavar="NAME", help="The name that policies give your key.")
@click.option("--policy", type=click.Path(path_type=Path), metavar="P",
              help="Whose nonces draw the sample, and how many steps at least.")  # fmt: skip
@json_option
def command(
    *,
    directory: Path,
    intend: bool,  # click hands flags over as bools
    samples: int | None,
    steps: str | None,
    mesh: str | None,
    states: str | None,
    key: str | None,
    operator: str | None,
    policy: Path | None,
    form: Form,
) -> int | None:
    """Re-execute steps of a run and sign what was found.

    First, while the run goes on: --intend logs a commitment to a nonce, which stays beside your
    key. After the final record: the audit draws steps from it, recomputes them bit for bit from
    the contract, evaluates the contract's properties, appends receipt and properties to D's log
    and rebuilds D/run.proof. Exits with 1 where a step, state 0, the line or the export does not
    hold or is withheld, with 2 where this machine could not judge.
    """
    if samples is not None and steps is not None:
        raise CommandError("--samples and --steps: give one of them")
    if intend and not (samples is None and steps is None and mesh is None and states is None):
        raise CommandError("--intend only announces: leave out the flags that say what to audit")
    set_compile_cache()
    from launch import audit_answer, auditing
    from launch.announcement import announce
    from launch.auditor_name import Asked

    asked = Asked(key, operator, policy)
    if intend:
        announcement = announce(directory, asked)
        emit(form, _announced(announcement), _announced_lines(announcement, directory))
        return None
    wanted = auditing.Wanted(
        samples=samples,
        steps=() if steps is None else _steps(steps),
        mesh=None if mesh is None else _mesh(mesh),
        states=states,
    )
    audited = auditing.audit(directory, asked, wanted)
    emit(form, audit_answer.document(audited), audit_answer.lines(audited))
    return audit_answer.exit_code(audited)


def _steps(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise CommandError(f"--steps {text}: write numbers joined by commas, for example 3,7")
    return tuple(int(part) for part in parts)


def _mesh(text: str) -> "MeshSizes":
    from anh_jax.workbench import MeshSizes

    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in _AXES or name in sizes or not size.isdecimal() or int(size) < 1:
            raise CommandError(
                f"--mesh {text}: write sizes of {', '.join(_AXES)}, for example data=2,tensor=2"
            )
        sizes[name] = int(size)
    return MeshSizes(**sizes)


def _announced(announcement: "Announcement") -> dict[str, object]:
    nonce = None if announcement.nonce is None else str(announcement.nonce)
    return {
        "index": announcement.index,
        "intent": announcement.record,
        "auditor": announcement.operator,
        "nonce": nonce,
    }


def _announced_lines(announcement: "Announcement", directory: Path) -> list[str]:
    where = f"index {announcement.index:,} of the log"
    if announcement.nonce is None:
        return [f"{announcement.operator} has announced this audit before, at {where}"]
    return [
        f"{announcement.operator} announces an audit at {where}",
        f"the nonce is in {announcement.nonce}; keep it until the audit",
        f"after the last step: anh audit {directory} with the same --key",
    ]
