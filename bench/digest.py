"""Claim: digesting a state on the host runs at two thirds of the rate of the hash it is made of.

Baseline, in the same run: the `blake3` package on one thread over the same bytes. Beside it stands
what a user would otherwise do: SHA-256 of every leaf, or one running SHA-256. Other tile sizes are
timed to show what the format's cost and give.
"""

from __future__ import annotations

from digest_state import compare, gpt2_shapes, training_state
from digest_tiles import compare_tiles
from digest_trees import compare_trees
from reporting import Report, parser

CLAIM = "state digest on the host over the blake3 package, CPU time; and over what others do"
_QUICK = {"layers": 1, "vocabulary": 5003}
_GPT2 = {"layers": 12, "vocabulary": 50257}


def main() -> None:
    made = parser(CLAIM)
    made.add_argument("--rounds", type=int, default=9)
    options = made.parse_args()
    if options.quick:
        options.rounds = 3
    report = Report(CLAIM)
    state = training_state(gpt2_shapes(**(_QUICK if options.quick else _GPT2)))
    compare(state, options.rounds, report)
    compare_tiles(state["parameters"], options.rounds, report)
    del state
    compare_trees(options.rounds, report)
    report.close(options.form)


if __name__ == "__main__":
    main()
