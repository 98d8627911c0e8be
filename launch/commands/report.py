"""`anh report`: one HTML page about a run, or a block for its model card."""

from pathlib import Path

import click

from launch.output import Form, emit, json_option


@click.command(name="report")
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@click.option("--card", is_flag=True, help="Print Markdown for a model card instead.")
@json_option
def command(*, directory: Path, card: bool, form: Form) -> None:  # click hands flags over as bools
    """Write one HTML page about a run.

    D/report.html is one file with plots and the verdict on run.proof. It loads nothing from the
    network. It works while the run goes on, with what there is.
    """
    from launch.report.facts import read_facts

    facts = read_facts(directory)
    if card:
        from launch.report.card import render_card

        text = render_card(facts)
        emit(form, {"card": text}, [text.rstrip("\n")])
        return
    from anh_jax.run_directory import write_atomically
    from launch.report.page import render, state_of

    path = directory / "report.html"
    write_atomically(path, render(facts).encode("utf-8"))
    standing = state_of(facts)
    document = {"file": str(path), "standing": standing.words, "troubles": list(facts.troubles)}
    notes = [f"could not read: {trouble}" for trouble in facts.troubles]
    emit(form, document, [f"wrote {path} ({standing.words})", *notes])
