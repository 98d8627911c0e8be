"""`anh export`: records and weights in the files that other tools read."""

from collections.abc import Mapping
from pathlib import Path

import click

from launch.errors import CommandError
from launch.output import Form, emit, json_option, printable

_FORMATS = ("tlog-proof", "intoto", "sigstore", "cose", "oms")
_PATH = click.Path(path_type=Path)
_SUFFIXES = {"tlog-proof": ".tlog-proof", "intoto": ".intoto.jsonl", "sigstore": ".sigstore.json"}


@click.command(name="export")
@click.argument("file", type=_PATH)
@click.option("--to", "target", type=click.Choice(_FORMATS), required=True, help="The format.")
@click.option("--record", metavar="WHICH",
              help="A log index, a record hash or a kind; default final or all.")  # fmt: skip
@click.option("--key", metavar="NAME", help="For cose and oms: the key of yours that signs.")
@click.option(
    "-o", "--output", type=_PATH, help="Where it goes; default here, named as its record."
)
@json_option
def command(
    *, file: Path, target: str, record: str | None, key: str | None, output: Path | None, form: Form
) -> None:
    """Write a record of FILE, or the weights' signature, in a format that other tools read.

    FILE is a run proof, a run directory or a log's directory; for oms a run directory. A file that
    exists is not replaced.
    """
    if key is not None and target not in ("cose", "oms"):
        raise CommandError(f"--key: {target} keeps the record's own signatures and needs no key")
    if target == "oms":
        files = _oms(file, record, key, output)
    elif target == "cose":
        files = _cose(file, record, key, output)
    else:
        files = _kept(file, target, record, output)
    # All or none: a receipt without its statement would look like half an answer.
    for path in files:
        if path.exists():
            raise CommandError(f"{path}: exists already; name another with -o")
    for path, data in files.items():
        with path.open("xb") as stream:
            stream.write(data)
    document = {"files": [{"file": str(p), "bytes": len(d)} for p, d in files.items()]}
    emit(form, document, [printable(f"wrote {p}, {len(d):,} bytes") for p, d in files.items()])


def _kept(file: Path, target: str, record: str | None, output: Path | None) -> Mapping[Path, bytes]:
    """Write what needs no new signature."""
    from attest.exports import intoto_bundle, sigstore_bundle
    from attest.record_proof import record_proof
    from launch.exporting import choose

    if target == "intoto":
        chosen = choose(file, record)
        data = intoto_bundle(r.envelope for r in chosen.records)
        stem = "run" if record is None else f"{chosen.records[0].statement.KIND}-{record[:16]}"
        return {output or Path(stem + _SUFFIXES[target]): data}
    chosen = choose(file, record or "final")
    one = chosen.one
    path = output or Path(f"{one.statement.KIND}-{one.index}{_SUFFIXES[target]}")
    if target == "sigstore":
        return {path: sigstore_bundle(one.envelope)}
    return {path: record_proof(chosen.proof, one).to_bytes()}


def _cose(
    file: Path, record: str | None, key: str | None, output: Path | None
) -> Mapping[Path, bytes]:
    from attest.cose import receipt, signed_statement
    from attest.record_proof import record_proof
    from launch.exporting import choose
    from launch.key_home import find_key

    if key is None:
        raise CommandError(
            "--to cose: a receipt is signed by a key of its own: make one with 'anh key new NAME' "
            "and add --key NAME"
        )
    signer = find_key(key)
    chosen = choose(file, record or "final")
    one = chosen.one
    proof = record_proof(chosen.proof, one)
    stem = output or Path(f"{one.statement.KIND}-{one.index}")
    issuer = f"key:{signer.keyid}"
    return {
        stem.with_name(f"{stem.name}.receipt"): receipt(one, proof, signer, issuer),
        stem.with_name(f"{stem.name}.scitt"): signed_statement(one, signer, issuer),
    }


def _oms(
    file: Path, record: str | None, key: str | None, output: Path | None
) -> Mapping[Path, bytes]:
    from attest.artifact import check_artifact
    from attest.statements import Final
    from launch.exporting import final_of
    from launch.model_signature import model_signature, release_key

    if record is not None:
        raise CommandError("--record: oms signs the weights that the final record names, no record")
    if not file.is_dir():
        raise CommandError(f"{file}: name the run's directory, which holds the weights in export/")
    final = final_of(file).statement
    if not isinstance(final, Final):
        raise CommandError(f"{file}: its proof holds no final record")
    # Only weights that the run ended with get its owner's signature.
    check_artifact(file / "export", final)
    path = output or Path(f"{file.resolve().name}.model.sig")
    return {path: model_signature(final, release_key(key or "release"), file.resolve().name)}
