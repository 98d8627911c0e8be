"""What a worker asks of whoever started it: an attempt to sign under, and an ear for its news.

A worker trains; it holds no run key, starts no process and knows no cluster. Its starter is a
single process, a Ray worker group, or somebody else's scheduler; each gives the worker these two
objects and nothing more.
"""

from pathlib import Path
from typing import Annotated, Literal, Protocol, runtime_checkable

import msgspec

_Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Hex32OrNone = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Size = Annotated[int, msgspec.Meta(ge=1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class WarmUp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one worker measured before genesis, median wall seconds of a few throw-away steps.

    `step_seconds` is one step without digests; the others are one digest of the whole state, one
    of the gradient, and one signed row. `repeats` says whether the gradient came out equal each
    time.
    """

    step_seconds: _Seconds
    state_seconds: _Seconds
    gradient_seconds: _Seconds
    signature_seconds: _Seconds
    repeats: bool


class AttemptRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One worker's wish to begin an attempt: what it will sign with, and what it resumes from.

    `rank` counts from 0 to `processes` - 1. `public_key_hex` is the worker's own key for this
    attempt. `resumed_record_hex` is the record hash of the genesis or step that it resumes from,
    empty or None for genesis, and `step` the steps completed there. `mesh` maps data, fsdp and
    tensor to their sizes. `execution_class` is what decides the bits of its steps, and
    `initial_root` the digest of state 0, for genesis; `warm_up` is there where the digest policy is
    `auto` and genesis is not signed yet. `gradient_seconds` is what the next gradient took, 0 where
    nobody looked. `reason` is what the worker knows; the granting side writes "worker lost" where
    an earlier group of the same run died.
    """

    rank: _Count
    public_key_hex: _Hex32
    resumed_record_hex: _Hex32OrNone | None
    step: _Count
    mesh: dict[str, _Size]
    processes: _Size
    environment: dict[str, str]
    reason: Literal["start", "resume", "worker lost"]
    execution_class: dict[str, str] = {}
    initial_root: _Hex32 | None = None
    warm_up: WarmUp | None = None
    gradient_seconds: _Seconds = 0.0


class AttemptGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The attempt that was opened: its number, from 1, and its record hash in hex.

    `segments` is how many rows a segment has at least, 0 where steps are logged; `segments_why`
    says in words why that was chosen, empty where nobody chose.
    """

    number: _Size
    record: _Hex32
    segments: _Count = 0
    segments_why: str = ""


@runtime_checkable
class AttemptBroker(Protocol):
    """Opens attempts with a run key that no worker holds."""

    def open_attempt(self, request: AttemptRequest) -> AttemptGrant:
        """Return the attempt that all ranks of this group share; blocks until it is signed.

        Every rank calls it once. Raises a one-line error when no grant comes in time, when the
        ranks' requests do not fit together, or when this group has been replaced by another.
        """
        ...


@runtime_checkable
class Reporter(Protocol):
    """Takes a worker's news and passes on the wish to stop."""

    def phase(self, name: str, seconds: float) -> None:
        """Note that a phase of the start-up, called `name`, took `seconds`."""
        ...

    def checkpoint(self, step: int, path: Path) -> None:
        """Note a durable training checkpoint; every rank calls it for the same steps.

        May wait for the other ranks.
        """
        ...

    def should_stop(self) -> bool:
        """Tell whether to write a training checkpoint now and return.

        Every rank calls it exactly once a step; all get the same answer at the same call.
        """
        ...
