"""What `anh verify` says of a canary run's answer: which named auditors passed a faulty step."""

from attest.canary import CanaryAnswer, check_canary
from attest.errors import FormatError
from attest.trust import Policy
from launch.errors import CommandError, ExitCode
from launch.output import Tone, printable, table, toned
from launch.refuting import Answer


def check_canary_answer(data: bytes, proof: bytes, policy: Policy) -> Answer:
    """Hold the receipts in a run's proof against the answer: 1 where an auditor failed, 2 if none.

    Raises what the light client raises for the proof, and CommandError for a file that is no
    answer.
    """
    try:
        answer = CanaryAnswer.from_bytes(data)
    except FormatError as error:
        raise CommandError(f"canary: {error}") from None
    tried = check_canary(answer, proof, policy)
    failed = [t for t in tried if t.finding in ("lazy", "copied")]
    if failed:
        code, tone = ExitCode.FAILED, Tone.BAD
        names = ", ".join(sorted({t.operator for t in failed}))
        words = f"FAILED: {names} signed what was not computed, if the steps are faulty"
    elif tried:
        code, tone, words = ExitCode.PASSED, Tone.GOOD, "no receipt passes a step that cannot pass"
    else:
        code, tone, words = ExitCode.COULD_NOT_RUN, Tone.DOUBTFUL, "no receipt of a named auditor"
    steps = ", ".join(f"{step:,}" for step in answer.faults)
    facts = [
        ("run", answer.run),
        ("faulty", f"steps {steps}: committed to before the final record"),
        *((t.operator, f"{t.finding} (index {t.index:,}): {t.words}") for t in tried),
        ("doubt", "that these steps are faulty is the maker's word until somebody executes one "
                  f"again: anh audit D --steps {answer.faults[0]}"),
    ]  # fmt: skip
    document = {
        "kind": "canary answer",
        "words": words,
        "run": answer.run,
        "faults": list(answer.faults),
        "receipts": [
            {"index": t.index, "auditor": t.operator, "hits": list(t.hits), "finding": t.finding,
             "words": t.words}
            for t in tried
        ],
        "exitCode": int(code),
    }  # fmt: skip
    lines = [toned(printable(words), tone), *(printable(line) for line in table(facts))]
    return Answer(document, lines, code)
