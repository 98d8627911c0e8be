"""What is at hand of a run's states and gradients; none counts before its digest is committed.

Training checkpoints hold states; what an own loop retained (`training/retained_steps.py`) holds the
state and the gradient of each step. Both are the trainer's files: a file that is missing is
withheld, and one that is not what its row commits is named. A source (`audit/state_source.py`)
hands over the same from elsewhere; what it does not show is withheld, and recorded.
"""

from collections.abc import Callable
from typing import Literal

from anh_jax.audit.state_source import Asked, StateSource, Withheld, WithheldError
from anh_jax.audit.transcript import SignedRun
from anh_jax.digest.host import gradient_digest, tree_digest
from anh_jax.errors import AnhError
from anh_jax.line import SignedRow
from anh_jax.training.checkpoints import TrainingCheckpoints
from anh_jax.training.executor import Tree
from anh_jax.training.retained_steps import RETENTION_FACT, RetainedSteps
from anh_jax.training.state import State
from anh_jax.workbench import Workbench


class KeptStates:
    """What is at hand of one run's states and gradients; `notes` name each file that is no good.

    Without `checkpoints` or `retained` there is nothing of that kind. With a `source` every
    committed state is asked of it, and `withheld` lists what it did not show.
    """

    def __init__(
        self,
        transcript: SignedRun,
        checkpoints: TrainingCheckpoints | None = None,
        retained: RetainedSteps | None = None,
        source: StateSource | None = None,
    ) -> None:
        self._transcript = transcript
        self._alg = transcript.genesis.alg
        self._checkpoints = checkpoints
        self._retained = retained
        self._source = source
        self._faults: dict[int, str] = {}
        self.withheld: list[Withheld] = []
        self.notes: list[str] = []

    @property
    def asked_for(self) -> bool:
        """Tell whether states are asked of a source: then one that is missing is withheld."""
        return self._source is not None

    def origins(self, step: int) -> range:
        """Return between which steps a replay up to `step` may start.

        A source is asked for the last committed state alone: with every older one it could choose
        how far an auditor goes for what it does not show.
        """
        if self._source is None:
            return range(step + 1)
        first = step
        while first and self._transcript.state_root(first) is None:
            first -= 1
        return range(first, step + 1)

    def steps(self, step: int) -> set[int]:
        """Return the steps up to `step` after which a state is at hand, good or not."""
        within = self.origins(step)
        if self._source is not None:
            return {within.start} - {0}
        saved = () if self._checkpoints is None else self._checkpoints.steps()
        retained = () if self._retained is None else self._retained.steps()
        return {*saved, *retained} & set(within)

    def state(self, step: int, bench: Workbench) -> State | None:
        """Return the committed state after a step, laid out for `bench`; None where there is none.

        A row without a state root commits no state, so nothing could be shown to be it.
        """
        committed = self._transcript.state_root(step)
        if committed is None:
            return None

        def root(state: State) -> str:
            return tree_digest(state, step=step, alg=self._alg).root.hex()

        shapes = bench.abstract_state()
        source, checkpoints, retained = self._source, self._checkpoints, self._retained
        if source is not None:
            asked = Asked("state", step, self._row(step), committed)
            return self._shown(asked, lambda: source.state(asked, shapes), root)
        if retained is not None and retained.path(step).is_file():
            what = f"{retained.path(step)}: its state is not the one that step {step} commits"
            found = self._checked(step, lambda: retained.state(step, shapes), root, committed, what)
            if found is not None:
                return found
        if checkpoints is not None and step in checkpoints.steps():
            what = f"the training checkpoint of step {step} is not the committed state"
            return self._checked(
                step, lambda: checkpoints.restore(step, shapes).state, root, committed, what
            )
        return None

    def outputs(self, step: int, bench: Workbench) -> Tree | None:
        """Return the committed `gradient` and `statistics` of a step; None where none is here."""
        retained, source = self._retained, self._source

        def root(outputs: Tree) -> str:
            return gradient_digest(outputs, step=step, alg=self._alg).root.hex()

        committed = self._transcript.line.rows[step - 1].row.gradient_root
        shapes = bench.abstract_outputs()
        if source is not None:
            asked = Asked("gradient", step, self._row(step), committed)
            return self._shown(asked, lambda: source.outputs(asked, shapes), root)
        if retained is None or not retained.path(step).is_file():
            return None
        what = f"{retained.path(step)}: its gradient is not the one that step {step} commits"
        return self._checked(step, lambda: retained.outputs(step, shapes), root, committed, what)

    def branch_state(self, signed: SignedRow, bench: Workbench) -> State | None:
        """Return the state that a row off the line commits; None where it is not at hand.

        Nothing is noted then: what a stale branch gave may honestly be lost.
        """
        step, committed = signed.row.step, signed.row.state_root
        if committed is None:
            return None
        asked = Asked("state", step, signed.row_hash.hex(), committed)
        shapes = bench.abstract_state()
        try:
            if self._source is not None:
                found = self._source.state(asked, shapes)
            elif self._checkpoints is not None and step in self._checkpoints.steps():
                found = self._checkpoints.restore(step, shapes).state
            else:
                return None
        except AnhError:
            return None
        return (
            found if tree_digest(found, step=step, alg=self._alg).root.hex() == committed else None
        )

    def branch_outputs(self, signed: SignedRow, bench: Workbench) -> Tree | None:
        """Return `gradient` and `statistics` that a row off the line commits, like its state."""
        step, committed = signed.row.step, signed.row.gradient_root
        if self._source is None:
            return None
        asked = Asked("gradient", step, signed.row_hash.hex(), committed)
        try:
            found = self._source.outputs(asked, bench.abstract_outputs())
        except AnhError:
            return None
        root = gradient_digest(found, step=step, alg=self._alg).root.hex()
        return found if root == committed else None

    def fault(self, step: int) -> str:
        """Say what was wrong with a step's files; empty where nothing was, so far."""
        return self._faults.get(step, "")

    def outcome(self, step: int) -> Literal["refuted", "withheld"]:
        """Say what it means for a run that something of a step is not at hand.

        Another digest than the row's, under the run key's own signature, refutes it; everything
        else is withheld, for anybody may have answered.
        """
        known = (w for w in self.withheld if w.asked.step == step)
        return "refuted" if any(w.signed is not None for w in known) else "withheld"

    def missing(self, step: int) -> str:
        """Say in words why a step's state or gradient is not at hand."""
        if fault := self.fault(step):
            return fault
        if step and self._transcript.state_root(step) is None:
            return f"row {step} commits no state, so no file could be shown to be it"
        told = self._transcript.genesis.environment.get(RETENTION_FACT)
        rule = "" if told is None else f" (genesis says what is: {told})"
        return f"step {step} is not retained{rule}"

    def _row(self, step: int) -> str:
        rows, run = self._transcript.line.rows, self._transcript.run
        return rows[step - 1].row_hash.hex() if step else run

    def _shown(
        self, asked: Asked, read: Callable[[], Tree], root: Callable[[Tree], str]
    ) -> Tree | None:
        """Return what the source shows if its root is the committed one, else record it."""
        try:
            found = read()
            digest = root(found)
            if digest == asked.committed:
                return found
            words = f"{asked.part} {asked.step}: what was handed over has another digest"
            withheld = Withheld(asked, "other bytes", words, digest=digest)
        except WithheldError as error:
            withheld = error.withheld
        if all(withheld.asked != known.asked for known in self.withheld):
            self.withheld.append(withheld)
        self._faults[asked.step] = withheld.words
        self.notes.append(withheld.words)
        return None

    def _checked(
        self,
        step: int,
        read: Callable[[], Tree],
        root: Callable[[Tree], str],
        committed: str,
        what: str,
    ) -> Tree | None:
        """Return what `read` gives if its root is the committed one, else note the fault."""
        try:
            found = read()
        except AnhError as error:
            fault = str(error)
        else:
            if root(found) == committed:
                return found
            fault = what
        self._faults[step] = fault
        self.notes.append(fault)
        return None
