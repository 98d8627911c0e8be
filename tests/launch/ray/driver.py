"""A driver in a process of its own: `driver.py RUN_DIRECTORY STAND_IN_JSON`, phases on stderr."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from anh_jax.training.seams import AttemptGrant, AttemptRequest
from launch.errors import report
from launch.phases import Phase
from launch.runner_ray import RayOptions, run_with_ray


def grant(requests: Sequence[AttemptRequest]) -> AttemptGrant:
    """Grant attempt 1 without a key."""
    return AttemptGrant(number=1, record="1" * 64)


def tell(phase: Phase) -> None:
    """Print a phase."""
    print(json.dumps(asdict(phase)), file=sys.stderr, flush=True)


def main() -> int:
    """Run two stand-in workers; exit as `anh train` would."""
    options = RayOptions(
        entry="stand_in:train",
        environment={
            "PYTHONPATH": str(Path(__file__).resolve().parent),
            "ANH_STAND_IN": sys.argv[2],
        },
    )
    try:
        outcome = run_with_ray(
            Path(sys.argv[1]),
            2,
            grant=grant,
            on_phase=tell,
            on_poll=lambda: None,
            options=options,
        )
    except BaseException as error:
        return report(error, ["train"])
    print(json.dumps({"ending": outcome.ending}))
    return 130 if outcome.ending == "interrupted" else 0


if __name__ == "__main__":
    sys.exit(main())
