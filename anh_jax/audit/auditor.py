"""Audits one closed run: re-executes its sampled steps in order and checks it as a whole."""

import dataclasses
import time
from collections.abc import Callable

import jax

from anh_jax.audit.benches import Benches
from anh_jax.audit.bounded import Opened
from anh_jax.audit.branches import Branches
from anh_jax.audit.exact import ExactJudge, Judged
from anh_jax.audit.findings import Findings
from anh_jax.audit.kept_states import KeptStates
from anh_jax.audit.replay import Reached, Replay, Unreached
from anh_jax.audit.results import Check, StepResult
from anh_jax.audit.run_checks import check_export, check_init, check_line, check_walk
from anh_jax.audit.sampling import overlaps
from anh_jax.audit.state_source import StateSource, Withheld
from anh_jax.audit.transcript import Transcript
from anh_jax.audit.unmoved import Unmoved
from anh_jax.audit.weighing import Weighing
from anh_jax.digest.host import tree_digest
from anh_jax.environment import execution_class
from anh_jax.line import SignedRow
from anh_jax.run_directory import RunDirectory
from anh_jax.stated_class import ClassMatch, match_class
from anh_jax.training.checkpoints import TrainingCheckpoints
from anh_jax.training.retained_steps import RetainedSteps
from anh_jax.workbench import MeshSizes, Workbench, read_materials
from attest.statements import Attempt

# Reading keeps everything: a manager that may keep fewer would remove the others.
_KEEP_ALL = 1 << 30

Progress = Callable[[StepResult, int], None]


class Auditor:
    """Holds what it takes to audit a run, read from its directory and checked against its records.

    `mesh` asks for the checks within bounds on another mesh besides; with None they are made where
    bits differ and cannot be compared. With a `source` no state that lies in the run directory is
    looked at: all are asked of the source, and a step that it does not show is withheld. `benches`
    are the run's where they are loaded already: many runs of one contract are then audited with
    programs compiled once. `seed` is that of the receipt to be signed (`attest.spread_seed`).
    Raises AnhError where the contract's parts are missing or not what the records name.
    """

    def __init__(
        self,
        run: RunDirectory,
        transcript: Transcript,
        *,
        mesh: MeshSizes | None = None,
        source: StateSource | None = None,
        benches: Benches | None = None,
        seed: int | None = None,
    ) -> None:
        self._transcript = transcript
        self._benches = benches or Benches(read_materials(run), transcript.genesis)
        self.materials = self._benches.materials
        self._checkpoints: TrainingCheckpoints | None = None
        if source is None:
            self._checkpoints = TrainingCheckpoints(run.checkpoints, keep=_KEEP_ALL)
            self._kept = KeptStates(transcript, self._checkpoints, RetainedSteps(run.retained))
        else:
            self._kept = KeptStates(transcript, source=source)
        self._replay = Replay(transcript, self._benches, self._kept)
        self._mesh = mesh
        self._judges: dict[int, ExactJudge] = {}
        self._beside = overlaps(transcript.line)
        self._refuted: set[int] = set()
        self._linked = 0
        first = self._benches.of(transcript.attempts[1]).executor.initial_state(
            self.materials.contract.seed
        )
        self._first_root = tree_digest(first, step=0, alg=transcript.genesis.alg).root.hex()
        self._unmoved = Unmoved(self.materials, first)
        self._weighing = Weighing(self._benches, transcript, self._unmoved, seed=seed)
        self._branches = Branches(self._benches, transcript, self._kept, self._weighing)

    def close(self) -> None:
        """Release the checkpoints' threads."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    @property
    def withheld(self) -> tuple[Withheld, ...]:
        """Return what the source of states was asked for and did not show, in order."""
        return tuple(self._kept.withheld)

    def __enter__(self) -> "Auditor":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def audit(self, steps: tuple[int, ...], progress: Progress | None = None) -> Findings:
        """Re-execute ascending steps and check the run as a whole.

        `progress` is called with each result and the number of results so far.
        """
        line = check_line(self._transcript, steps=self.materials.contract.steps)
        init = self._check_init()
        results: list[StepResult] = []
        clocks = [time.perf_counter()]
        for step in steps:
            if line.verdict == "pass":
                results.append(self._step(step))
                self._refuted |= {step} if results[-1].outcome == "refuted" else set()
            else:
                what = "broken" if line.verdict == "fail" else "not at hand"
                results.append(StepResult(step, "withheld", f"the line is {what}: {line.words}"))
            clocks.append(time.perf_counter())
            if progress is not None:
                progress(results[-1], len(results))
        final = self._final_state(line)
        parameters = final.state["parameters"] if isinstance(final, Reached) else None
        counts = None if parameters is None else self._bench_of_last().evaluate(parameters)
        return Findings(
            results=tuple(results),
            init=init,
            line=line,
            export=check_export(
                parameters,
                self._transcript,
                missing="" if isinstance(final, Reached) else final.words,
            ),
            walk=check_walk(self._weighing.walk, results),
            drift=self._weighing.drift.finding(),
            spread_seed=self._weighing.seed,
            counts=counts,
            seconds=clocks[-1] - clocks[0],
            step_seconds=tuple(b - a for a, b in zip(clocks, clocks[1:], strict=False)),
            notes=tuple(dict.fromkeys(self._replay.notes)),
        )

    def own_class(self) -> dict[str, str]:
        """Return the execution class that the steps are recomputed on."""
        newest = self._transcript.attempts[max(self._transcript.attempts)]
        sizes = self._benches.of(newest).sizes if self._mesh is None else self._mesh
        return execution_class(sizes.as_dict(), processes=jax.process_count())

    def match(self, attempt: Attempt) -> ClassMatch:
        """Say whether an attempt's bits must be ours."""
        if self._benches.native:
            return ClassMatch("the trainer's plan is native: other code than the stored programs")
        return match_class(attempt, self._transcript.genesis)

    def _step(self, step: int) -> StepResult:
        """Judge one step: its row on the line, and those that stale branches have beside it."""
        before = self._replay.state(step - 1)
        if isinstance(before, Unreached):
            return self._withheld(step, before)
        signed = self._transcript.line.rows[step - 1]
        judged = self._judge(before, signed)
        result = judged.result
        bench = self._bench_for_bounds(signed, result)
        if bench is not None:
            result = self._within_bounds(before, signed, judged, bench)
        for stale in self._beside.get(step, ()):
            if stale.row_hash != signed.row_hash:
                result = self._branches.join(result, before, stale, self._judge(before, stale))
        if signed.row.state_root is None:
            return self._until_committed(before, result)
        if judged.after is not None:
            self._replay.go_on_from(Reached(step, judged.after))
        return result

    def _until_committed(self, before: Reached, result: StepResult) -> StepResult:
        """Go on to the next committed state: before it nothing says what the step's update gave.

        A training checkpoint may hold that state; what counts is that the step leads there.
        """
        if result.step <= self._linked:
            return result
        rows = self._transcript.line.rows[result.step :]
        following = next((s.row.step for s in rows if s.row.state_root is not None), None)
        if following is None or result.outcome != "pass":
            return result
        reached = self._replay.follow(before, following)
        if isinstance(reached, Reached):
            # Every step up to there was taken on the way, and led to what is committed.
            self._linked = following
            return result
        missing = self._withheld(result.step, reached)
        outcome = "refuted" if missing.outcome == "refuted" else "unattestable"
        return dataclasses.replace(result, outcome=outcome, words=missing.words)

    def _withheld(self, step: int, unreached: Unreached) -> StepResult:
        """Say why a step could not be re-executed.

        Where a step on the way does not hold, the run does not: that is said once, with the first
        step that needed it.
        """
        words = unreached.words
        start = self._kept.origins(step - 1).start
        if self._kept.asked_for:
            words = self._kept.missing(start)
        elif self._benches.native and step > 1:
            words = f"{self._kept.missing(step - 1)}; {words}"
        result = StepResult(step, self._kept.outcome(start), words)
        if unreached.last is None or unreached.last.step + 1 in self._refuted:
            return result
        broken = self._transcript.line.rows[unreached.last.step]
        found = self._judge(unreached.last, broken).result
        if found.outcome != "refuted":
            return self._not_regenerated(dataclasses.replace(result, words=words), found)
        self._refuted.add(found.step)
        where = "before" if found.step < step else "after"
        words = f"step {found.step}, {where} it: {found.words}"
        return dataclasses.replace(found, step=step, words=words)

    def _not_regenerated(self, result: StepResult, found: StepResult) -> StepResult:
        """Say that a step on the way comes out otherwise here, which may be honest.

        Nobody was asked for the state then, so nobody withheld it.
        """
        words = f"{result.words} ({found.words})"
        if self._kept.asked_for or self._benches.native:
            return dataclasses.replace(result, words=words)
        words += "; the trainer can make it: audit with --states"
        return dataclasses.replace(result, outcome="unattestable", words=words)

    def _judge(self, before: Reached, signed: SignedRow) -> Judged:
        attempt = self._transcript.attempt_of(signed)
        if attempt.number not in self._judges:
            self._judges[attempt.number] = ExactJudge(
                self._benches.of(attempt),
                self._transcript.genesis,
                self.match(attempt),
                self._unmoved,
            )
        return self._judges[attempt.number].judge(before, signed)

    def _bench_for_bounds(self, signed: SignedRow, result: StepResult) -> Workbench | None:
        """Return where a step is to be judged within bounds; None where bits alone judge it.

        Where other bits say nothing (another class, a native plan, replays that disagree), the
        run's own mesh serves.
        """
        if result.outcome == "refuted":
            return None
        if self._mesh is not None:
            return self._benches.on(self._mesh)
        if result.outcome == "unattestable":
            return self._benches.of(self._transcript.attempt_of(signed))
        return None

    def _within_bounds(
        self, before: Reached, signed: SignedRow, judged: Judged, bench: Workbench
    ) -> StepResult:
        """Weigh a step within bounds, where all of it can be opened."""
        own = self._benches.of(self._transcript.attempt_of(signed))
        step, native = signed.row.step, self._benches.native
        promised = native or self._kept.asked_for
        after, outputs = judged.after, judged.outputs
        # Of an own loop the files are read even where they could be done without: a changed one
        # is then named whatever the bits.
        if native or after is None:
            after = self._kept.state(step, own) or after
        if native or outputs is None:
            outputs = self._kept.outputs(step, own) or outputs
        if outputs is None or after is None or (native and self._kept.fault(step)):
            if not promised:
                return judged.result
            # Only the trainer has what its own code gave: not to show it is to withhold it. The
            # same holds for what was asked of a source.
            words = f"{self._kept.missing(step)}; {judged.result.words}"
            outcome = self._kept.outcome(step)
            return dataclasses.replace(judged.result, outcome=outcome, words=words)
        exact = judged.result.outcome == "pass"
        opened = Opened(before.state, outputs, after, exact=exact)
        return self._weighing.judge(bench, opened, signed, judged.result)

    def _check_init(self) -> Check:
        match = self.match(self._transcript.attempts[1])
        kind = self.materials.programs.init_kind
        return check_init(self._first_root, self._transcript, kind, match)

    def _final_state(self, line: Check) -> Reached | Unreached:
        """Return the state after the last step, or why it is not at hand."""
        if line.verdict != "pass":
            return Unreached("the line does not lead to it")
        last = self.materials.contract.steps
        reached = self._replay.state(last)
        if isinstance(reached, Unreached) and self._kept.asked_for:
            return Unreached(self._kept.missing(last))
        return reached

    def _bench_of_last(self) -> Workbench:
        last = self._transcript.line.rows[-1]
        return self._benches.of(self._transcript.attempt_of(last))
