"""Decides how often a run digests its state: once, before genesis, for all its workers."""

from collections.abc import Sequence
from dataclasses import dataclass

from anh_jax.digest.policy import choose_every
from anh_jax.errors import AnhError
from anh_jax.experiment import Experiment
from anh_jax.training.seams import WarmUp

AUTO = "auto"
POLICY_FACT = "digestPolicy"
"""The name of the fact in genesis' environment that says why `auto` chose what it chose."""

_PREFIX = "every "


@dataclass(frozen=True)
class DigestDecision:
    """The policy as genesis states it, and why, in words; empty where the config fixed it."""

    policy: str
    why: str

    @property
    def facts(self) -> dict[str, str]:
        """Return what genesis' environment says of it."""
        return {POLICY_FACT: self.why} if self.why else {}


def every_of(policy: str) -> int:
    """Return N of genesis' `every N`."""
    return int(policy.removeprefix(_PREFIX))


def setting_of(experiment: Experiment) -> str:
    """Return `attest.digest`; `every 1` instead of `auto` for a plan that is no exact class.

    Where steps are judged within bounds, each of them from the committed state before it, no replay
    reaches a state between two signed ones.
    """
    attest = experiment.attest
    return attest.unmeasured_digest if experiment.plan.kind == "native" else attest.digest


def decide(
    setting: str, warm_ups: Sequence[WarmUp | None], *, checkpoint_every: int
) -> DigestDecision:
    """Choose what genesis states, from `attest.digest` and what each worker measured, by rank.

    The slowest worker decides: the largest N that any of them needs, a divisor of the training
    checkpoints' interval in steps. N is 1 where a worker's gradients did not repeat. Raises
    AnhError where the setting is `auto` and a worker measured nothing.
    """
    if setting != AUTO:
        return DigestDecision(setting, "")
    measured = [warm_up for warm_up in warm_ups if warm_up is not None]
    if len(measured) != len(warm_ups) or not measured:
        raise AnhError("attest.digest: auto: a worker measured nothing; restart the run")
    exact = all(warm_up.repeats for warm_up in measured)
    chosen = [
        choose_every(
            warm_up.step_seconds,
            warm_up.state_seconds,
            # What every row costs, however often the state is digested.
            warm_up.gradient_seconds + warm_up.signature_seconds,
            longest=checkpoint_every,
            exact=exact,
        )
        for warm_up in measured
    ]
    every = max(chosen)
    rank = chosen.index(every)
    why = f"{AUTO}: {_PREFIX}{every}; {_words(measured[rank])} (rank {rank})"
    if not exact:
        why += "; gradients did not repeat"
    return DigestDecision(f"{_PREFIX}{every}", why)


def _words(warm_up: WarmUp) -> str:
    times = (
        ("step", warm_up.step_seconds),
        ("state digest", warm_up.state_seconds),
        ("gradient digest", warm_up.gradient_seconds),
        ("signature", warm_up.signature_seconds),
    )
    return ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in times)
