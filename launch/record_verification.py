"""Answer `anh verify` for a `.tlog-proof`: one record, its place in the log, its signers."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attest.memory import Memory
from attest.proof import parse_proof
from attest.record_proof import verify_record
from attest.trust import Policy
from launch.output import Tone, printable, toned
from launch.verification import read_file, verify_proof_file


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """What to print about one record, and the exit code."""

    document: Mapping[str, Any]
    lines: list[str]
    exit_code: int


def verify_record_file(
    data: bytes, policy: Policy, proof: Path | None, memory: Memory | None
) -> RecordAnswer:
    """Verify a record, and before it the run proof that vouches for its signers, if one is given.

    Raises what the light client raises.
    """
    run = None
    if proof is not None:
        proof_data = read_file(proof)
        verify_proof_file(proof, proof_data, policy, artifact=None, history=memory)
        run = parse_proof(proof_data)
    start = time.perf_counter()
    found = verify_record(data, policy, run=run, history=memory)
    milliseconds = (time.perf_counter() - start) * 1e3
    document = found.to_json() | {"milliseconds": round(milliseconds, 3)}
    first, *rest = [printable(line) for line in found.lines()]
    tone = Tone.GOOD if found.exit_code == 0 else Tone.BAD
    return RecordAnswer(document, [toned(first, tone), *rest], found.exit_code)
