"""Judges the update of a step: element by element, or by a spread where elements mix.

An `elementwise` optimizer's update is recomputed almost exactly (check B, staged) and what remains
is looked at as a walk. Of a `bounded` one (factored moments, norms inside the rule) rounding of a
sum reaches every element, so its new state is held to c spreads per tensor and c_row per block, as
a gradient is.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

from anh_jax.bounds.acceptance import Terms, check_tensor
from anh_jax.bounds.deviations import Spread, TensorSpread
from anh_jax.bounds.statistic import Array, Statistic, host_leaves, largest, same_bits
from anh_jax.bounds.update_spread import UpdateSpreadEstimator
from anh_jax.bounds.update_stage import UpdateInputs, UpdateStage
from anh_jax.bounds.walk import PairwiseCosine, walk_of_slot, walk_of_tensor
from anh_jax.errors import ProgramError
from anh_jax.experiment_optimizers import Adafactor
from anh_jax.program.tree import Path, path_text
from anh_jax.workbench import Materials
from attest.numerics_class import ClassRules


@dataclass(frozen=True)
class UpdateFindings:
    """What was found of an update; `walk` is None where nothing could be said of one.

    `blind` names the operator that rounding could not be followed through, if there is one.
    """

    b: Statistic
    walk: Statistic | None
    capped: tuple[Path, ...] = ()
    blind: str = ""


@dataclass(frozen=True)
class JudgedUpdate:
    """An update to judge: what it took, the committed state after it, and that computed here."""

    inputs: UpdateInputs
    after: Any
    reference: Any


class UpdateJudge(Protocol):
    """Judges the state after a step."""

    def judge(
        self, update: JudgedUpdate, *, seed: int, walk: PairwiseCosine | None
    ) -> UpdateFindings:
        """Judge the committed state after a step, with a 64-bit seed for what is estimated."""
        ...


class ElementwiseJudge:
    """Check B and the walk of an elementwise optimizer."""

    def __init__(self, stage: UpdateStage) -> None:
        self._stage = stage

    def judge(
        self, update: JudgedUpdate, *, seed: int, walk: PairwiseCosine | None
    ) -> UpdateFindings:
        """Judge the committed state, tensor by tensor; nothing is estimated."""
        unfit = self._stage.unfit(update.inputs, update.reference)
        if not unfit.accepted:
            where = f"{unfit.where}: the update program is of another rule"
            return UpdateFindings(Statistic(math.inf, where), None)
        worst: list[Statistic] = []
        walks: list[Statistic] = []
        units: dict[str, Array] = {}
        for residual in self._stage.residuals(update.inputs, update.after, update.reference):
            worst.append(residual.worst)
            moves = residual.name.startswith("parameters/")
            found = (walk_of_tensor if moves else walk_of_slot)(residual.name, residual.share)
            walks += [] if found is None else [found]
            if walk is not None and moves:
                units[residual.name] = residual.units
        if walk is not None:
            walk.add(units)
        return UpdateFindings(largest(worst), largest(walks) if walks else None)


class UpdateSpreads(Protocol):
    """Estimates how far rounding moves the outputs of `update` (`bounds/update_spread.py`)."""

    def of(self, inputs: UpdateInputs, *, seed: int) -> Spread:
        """Return the spread of the new `parameters` and `optimizer`, by path."""
        ...


class SpreadJudge:
    """The spread rule for the update of a `bounded` optimizer."""

    def __init__(self, rules: ClassRules, spreads: UpdateSpreads) -> None:
        self._spreads = spreads
        self._terms = Terms(
            c=rules.c,
            c_row=rules.c_row,
            floor=rules.phi * rules.roundoff.update,
            cap=rules.cap,
            local_zeros="ignored",
        )

    def judge(
        self, update: JudgedUpdate, *, seed: int, walk: PairwiseCosine | None
    ) -> UpdateFindings:
        """Judge the committed state by spreads; of a walk nothing is said.

        Without a spread only equal bits are judged.
        """
        inputs, spreads, blind = update.inputs, dict[Path, TensorSpread](), ""
        try:
            spreads.update(self._spreads.of(inputs, seed=seed).tensors if inputs.finite else {})
        except ProgramError as error:
            blind = str(error)
        expected = update.reference if inputs.finite else inputs.before
        found: list[Statistic] = []
        capped: list[Path] = []
        for part in ("parameters", "optimizer"):
            theirs = host_leaves(update.after[part])
            for path, ours in host_leaves(expected[part]).items():
                name = f"{part}/{path_text(path)}"
                if not inputs.finite:
                    moved = not same_bits(theirs[path], ours)
                    found.append(Statistic(math.inf if moved else 0.0, name))
                    continue
                finding = check_tensor(
                    name, theirs[path], ours, terms=self._terms, spread=spreads.get((part, *path))
                )
                found += [finding.a, finding.a_row]
                capped += [(part, *path)] if finding.capped else []
        return UpdateFindings(largest(found), None, tuple(capped), blind)


def update_judge(materials: Materials) -> UpdateJudge:
    """Return the judge of a contract's updates, by its optimizer."""
    config, rules = materials.experiment.optimizer, materials.contract.numerics.rules
    if isinstance(config, Adafactor):
        spreads = UpdateSpreadEstimator(
            materials.programs.stored["update"], rules, materials.constants.names
        )
        return SpreadJudge(rules, spreads)
    return ElementwiseJudge(UpdateStage(config, unit_roundoff=rules.roundoff.update))
