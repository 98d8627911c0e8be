"""Attacks by whoever writes the contract."""

from anh_jax.redteam.attack import Trial
from anh_jax.redteam.other_data import PoisonedLabel
from launch.redteam.place import RecordPlace
from launch.redteam.records import RecordAttack

# A gradient of anything lies within these.
_LOOSE = tuple(f"numerics.{name}=1e9" for name in ("c", "c_row", "cap", "a2", "a2_cold"))


class LoosenedContract(RecordAttack):
    """Writes tolerances into the contract that excuse every gradient."""

    name, family = "loosened-contract", "bound"
    what = "The contract's c, cap and A2 are 1e9, and each step has a poisoned label; audits pass."

    def attack(self, place: RecordPlace) -> Trial:
        """Train under the loose contract, let acme audit it, and show its clean receipt."""
        loose = place.variant(_LOOSE)
        bad = frozenset(range(1, loose.bench.steps + 1))
        trainer = PoisonedLabel.trainer
        run = loose.copied(loose.bench.once("loose", lambda: loose.trained(trainer, bad)))
        done = loose.audit(run, samples=4)
        loose.watch(run)
        reading = loose.read(run, loose.prove(run))
        counts = done.receipt.counts
        words = f"{counts.pass_} of {done.receipt.steps} audited steps pass; {reading.text}"
        return Trial(not reading.accepted, None, words)


ATTACKS = (LoosenedContract(),)
