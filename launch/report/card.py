"""A block of Markdown for a model card: verdict, coverage, what it does not say."""

from launch.report.facts import RunFacts
from launch.report.page import NON_CLAIMS, state_of


def render_card(facts: RunFacts) -> str:
    """Write the block; text from files is put into code spans or fenced, so it stays text."""
    contract = facts.contract
    lines = ["## Training record", ""]
    if facts.judgement is not None:
        lines += ["```text", *(line.replace("`", "'") for line in facts.judgement.lines), "```"]
    else:
        lines += [f"No run proof{'' if facts.unsigned else ' yet'}: {state_of(facts).words}."]
    lines += [
        "",
        "| | |",
        "|---|---|",
        f"| contract | {_code(contract.id)} |",
        f"| run | {_code(facts.run or 'no genesis yet')} |",
        f"| steps | {contract.steps:,} of {contract.batch_size:,} examples |",
        f"| numerics | {_code(contract.numerics.class_)} |",
        f"| attempts | {len(facts.attempts)} |",
    ]
    if facts.final is not None:
        lines += [
            f"| {_code(file.name)} | sha256 {_code(file.sha256)} |" for file in facts.final.files
        ]
    for audit in facts.audits:
        counts = audit.counts
        lines.append(
            f"| audit by {_code(audit.auditor)} | {audit.steps} of {contract.steps} steps "
            f"re-executed ({audit.sample}, {audit.method}): {counts.pass_} passed, "
            f"{counts.refuted} refuted, {counts.unattestable} unattestable, "
            f"{counts.withheld} withheld |"
        )
    lines += ["", "Check it yourself: `anh verify run.proof --policy yours.toml`", ""]
    lines += ["What this does not say:", "", *(f"- {claim}" for claim in NON_CLAIMS)]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return "`" + text.replace("`", "'").replace("|", "/") + "`"
