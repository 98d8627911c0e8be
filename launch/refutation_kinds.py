"""What `anh inspect` says of a refutation: whom it is about, and what is left to compute."""

from pathlib import Path
from typing import Any, cast

from attest import canonical
from attest.file_fields import MAX_BYTES
from launch.description import Description


def describe_refutation(path: Path, data: bytes) -> Description:
    """Describe a refutation file of any kind; FormatError where it is none."""
    value = cast("dict[str, Any]", canonical.decode(data, max_bytes=MAX_BYTES))
    match value.get("format"):
        case "anh step refutation v1":
            return _step(data)
        case "anh init refutation v1":
            return _start(data)
        case "anh recording refutation v1":
            return _recording(data)
        case _:
            return _operator(data)


def _step(data: bytes) -> Description:
    from attest.digest_tree import path_text
    from attest.signed_step import statement_of
    from attest.statements import Step
    from attest.step_refutation import StepRefutation

    found = StepRefutation.from_bytes(data)
    said = statement_of(found.signed.row, Step).row
    facts = [
        ("run", said.run),
        ("step", str(said.step)),
        ("tensor", path_text(found.path)),
        ("element", str(found.element)),
    ]
    return Description("refutation of an update", facts, ["'anh verify FILE' takes it anew"])


def _start(data: bytes) -> Description:
    from attest.digest_tree import path_text
    from attest.init_refutation import InitRefutation
    from attest.opening import Opening

    found = InitRefutation.from_bytes(data)
    facts = [
        ("run", found.signed.genesis.record_hash().hex()),
        ("tensor", path_text(Opening.from_bytes(found.opening).header.path)),
        ("element", str(found.element)),
    ]
    return Description("refutation of a start", facts, ["'anh verify FILE' runs init"])


def _recording(data: bytes) -> Description:
    from attest.recording import Recording
    from attest.recording_refutation import RecordingRefutation

    found = RecordingRefutation.from_bytes(data)
    said = Recording.from_envelope(found.signed.recording)
    facts = [
        ("run", said.run),
        ("step", str(said.step)),
        ("shows", found.kind),
        *(("entry", placed.entry.text) for placed in found.entries[:2]),
    ]
    return Description("refutation of a recording", facts, ["'anh verify FILE' traces the program"])


def _operator(data: bytes) -> Description:
    from attest.recording import Recording
    from attest.refutation import Refutation

    found = Refutation.from_bytes(data)
    said = Recording.from_envelope(found.signed.recording)
    facts = [
        ("run", said.run),
        ("step", str(said.step)),
        ("operator", found.entry.text),
        ("excess", found.claim.excess),
    ]
    return Description("refutation", facts, ["'anh verify FILE' runs its one operator"])
