"""The light client as a program of its own: `python anh-verify.pyz FILE --policy P`.

What the single file runs (`docs/build_client.py` makes it). Standard library and PyNaCl; the same
checks, words and exit codes as `anh verify` has for run proofs and records.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from attest.client import verify_run
from attest.errors import AttestError, InputError
from attest.memory import Memory
from attest.policy import load_policy
from attest.proof import MAX_PROOF_BYTES, parse_proof
from attest.record_proof import verify_record
from attest.tlog_proof import HEAD
from attest.trust import Policy

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify a file and print the verdict; return 0, 1, 2 or 3 as `anh verify` does."""
    said = _parser().parse_args(arguments)
    try:
        return _verify(said)
    except AttestError as error:
        print(f"anh-verify: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="anh-verify",
        description="Check a run proof or a .tlog-proof against a policy, offline.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--policy", type=Path, required=True, help="whom you trust (TOML)")
    parser.add_argument("--artifact", type=Path, help="the exported weights to compare")
    parser.add_argument("--proof", type=Path, help="the run proof that a record rests on")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _verify(said: argparse.Namespace) -> int:
    policy = load_policy(said.policy)
    data = _read(said.file)
    history = _memory(policy)
    if data.startswith(HEAD):
        run = None
        if said.proof is not None:
            proof = _read(said.proof)
            verify_run(proof, policy, history=history)
            run = parse_proof(proof)
        found = verify_record(data, policy, run=run, history=history)
        lines = found.lines()
        document = found.to_json()
        code = found.exit_code
    else:
        verdict = verify_run(data, policy, artifact=said.artifact, history=history)
        lines, document, code = verdict.text().splitlines(), verdict.to_json(), verdict.exit_code
    shown = [json.dumps(document, sort_keys=True)] if said.json else map(_printable, lines)
    print("\n".join(shown))
    return code


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_PROOF_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _memory(policy: Policy) -> Memory | None:
    """Return the memory that `anh verify` uses, or None where nothing can be kept."""
    home = os.environ.get("ANH_HOME")
    base = Path(home) if home else Path.home() / ".config" / "anh"
    folder = base / "logs" / policy.log.key.public.hex()[:16]
    try:
        memory = Memory(folder)
    except InputError:
        return None  # a read-only home: the verdict says that history was not checked
    return memory if os.access(folder, os.W_OK | os.X_OK) else None


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


if __name__ == "__main__":
    sys.exit(main())
