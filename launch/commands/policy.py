"""`anh policy`: write, print and check what a relying party trusts and demands."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launch.errors import CheckFailed, CommandError
from launch.output import Form, emit, json_option, printable, table

if TYPE_CHECKING:
    from attest.trust import Policy

_PATH = click.Path(path_type=Path)
_LEVELS = ("logged", "witnessed", "sampled", "reproduced")
# Spelt out so that --help imports nothing of attest; test_policy holds them to KEY_ROLES.
_ROLES = ("author", "run", "auditor", "monitor", "reporter")


@click.group(name="policy")
def command() -> None:
    """Write, print or check a policy.

    A policy names the log, the witnesses and the keys you trust, each with the operator who runs
    it, and the level that a run must reach.
    """


def _key_options(function: Any) -> Any:
    for role in reversed(_ROLES):
        text = f"Trust this {role} key: 64 hex digits, a vkey, a name or a file."
        option = click.option(f"--{role}", multiple=True, metavar="KEY=OPERATOR", help=text)
        function = option(function)
    return function


@command.command()
@click.argument("file", type=_PATH)
@click.option("--like", type=_PATH, help="Start from this policy, for example D/policy.toml.")
@click.option("--from-tlog-policy", type=_PATH, metavar="FILE",
              help="Take log, witnesses and quorum from a C2SP tlog-policy.")  # fmt: skip
@click.option("--log", metavar="VKEY=OPERATOR", help="Trust this log.")
@click.option("--witness", multiple=True, metavar="VKEY=OPERATOR", help="Trust this witness.")
@click.option("--quorum", type=int, help="Witness operators needed; a majority by default.")
@_key_options
@click.option("--contract", multiple=True, metavar="ID", help="Accept only this contract.")
@click.option("--level", type=click.Choice(_LEVELS), help="The level that a run must reach.")
@click.option("--property", "demands", multiple=True, metavar="NAME[=OPERATORS]",
              help="Require this property, judged by so many foreign operators.")  # fmt: skip
@click.option("--unmeasured", multiple=True, metavar="CLASS",
              help="Let bounded audits of this class count unmeasured.")  # fmt: skip
@json_option
def new(*, file: Path, form: Form, **said: Any) -> None:
    """Write a new policy to FILE; one that exists is never replaced."""
    from attest.keys import Role
    from attest.policy import policy_text
    from launch.policy_draft import Draft, build, problem

    policy = build(
        Draft(
            like=said["like"],
            tlog_policy=said["from_tlog_policy"],
            log=said["log"],
            witnesses=said["witness"],
            quorum=said["quorum"],
            keys=[(Role(role), text) for role in _ROLES for text in said[role]],
            contracts=said["contract"],
            level=said["level"],
            properties=said["demands"],
            unmeasured=said["unmeasured"],
        )
    )
    trouble = problem(policy)
    if trouble is not None:
        raise CommandError(f"{file} not written: {trouble}")
    with file.open("x", encoding="utf-8") as stream:
        stream.write(policy_text(policy))
    emit(form, {"file": str(file), **_document(policy)}, [f"wrote {file}", *_lines(policy)])


@command.command()
@click.argument("file", type=_PATH)
@json_option
def show(*, file: Path, form: Form) -> None:
    """Print who is trusted for what, and how far a run can come under the policy."""
    from attest.policy import load_policy

    policy = load_policy(file)
    emit(form, {"file": str(file), **_document(policy)}, _lines(policy))


@command.command()
@click.argument("file", type=_PATH)
@json_option
def check(*, file: Path, form: Form) -> None:
    """Check that the policy is well formed and that some run could pass it."""
    from attest.policy import load_policy
    from launch.policy_draft import refusal

    trouble = refusal(file)
    if trouble is not None:
        raise CheckFailed(trouble if str(file) in trouble else f"{file}: {trouble}")
    policy = load_policy(file)
    document = {"file": str(file), **_document(policy)}
    lines = [f"{file}: well formed, satisfiable", *(f"  note: {n}" for n in document["notes"])]
    emit(form, document, lines)


def _document(policy: "Policy") -> dict[str, Any]:
    from launch.policy_draft import highest_level, shortcomings

    return {
        "origin": policy.log.origin,
        "logOperator": policy.log.operator,
        "witnesses": [{"name": w.key.name, "operator": w.operator} for w in policy.witnesses],
        "quorum": policy.quorum,
        "groups": [
            {"name": g.name, "needed": g.needed, "members": list(g.members)} for g in policy.groups
        ],
        "keys": [
            {"role": e.role.value, "operator": e.operator, "public": e.public.hex()}
            for e in policy.keys
        ],
        "requiredLevel": policy.require.level.text,
        "highestLevel": highest_level(policy).text,
        "properties": [
            {"name": p.name, "operators": p.operators} for p in policy.require.properties
        ],
        "notes": shortcomings(policy),
    }


def _lines(policy: "Policy") -> list[str]:
    said = _document(policy)
    witnesses = ", ".join(f"{w['name']} ({w['operator']})" for w in said["witnesses"])
    pairs = [
        ("log", f"{said['origin']} ({said['logOperator']})"),
        ("witnesses", f"{said['quorum']} of {witnesses}"),
        *(
            ("group", f"{g['name']}: {g['needed']} of {', '.join(g['members'])}")
            for g in said["groups"]
        ),
        *((e["role"], f"{e['operator']}  {e['public']}") for e in said["keys"]),
        ("required", said["requiredLevel"]),
        *(("property", f"{p['name']} by {p['operators']}") for p in said["properties"]),
        ("reachable", f"{said['highestLevel']} at most"),
        *(("note", note) for note in said["notes"]),
    ]
    return table([(name, printable(value)) for name, value in pairs], indent=0)
