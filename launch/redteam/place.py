"""Where attacks on records happen: real runs in real logs, and a reader who trusts others.

`acme` audits, `eye.example` monitors, `w.example` witnesses; the trainer runs everything else. All
of it is made by the functions of the real commands.
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anh_jax.experiment import experiment_yaml, load_experiment
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.other_rule import RateOnePercent
from anh_jax.redteam.trainer import Trainer
from anh_jax.run_directory import RunDirectory
from attest.client import verify_run
from attest.errors import AttestError
from attest.keys import PrivateKey, Role
from attest.level import Level
from attest.log.shipper import Shipper
from attest.memory import Memory
from attest.policy import load_policy
from attest.trust import Policy
from attest.verdict import Verdict
from launch.announcement import announce
from launch.auditing import Audited, Wanted, audit
from launch.auditor_name import Asked
from launch.canary_planting import Answer, plant
from launch.logs import run_log
from launch.policy_draft import Draft, build
from launch.prover import prove
from launch.status_log import StatusLog, monitor_name

AUDITOR, MONITOR, WITNESS = "acme", "eye.example", "w.example"


@dataclass(frozen=True)
class Reading:
    """What the light client says: a verdict, or why it refuses; `text` is either in words."""

    verdict: Verdict | None
    refusal: str

    @property
    def text(self) -> str:
        """Return the headline or the refusal."""
        return self.refusal if self.verdict is None else self.verdict.headline()

    @property
    def accepted(self) -> bool:
        """Tell whether the reader's policy is met: a run sampled by a foreign operator."""
        return self.verdict is not None and self.verdict.exit_code == 0


@dataclass(frozen=True)
class Canary:
    """A run with secret faults, and which they are."""

    run: RunDirectory
    answer: Answer


class RecordPlace:
    """Closed runs to attack: an honest one, and one that cheats at every step.

    Both were announced to be audited by acme before their final records, and nobody audited yet.
    """

    def __init__(self, bench: RedTeamBench, folder: Path) -> None:
        self.bench = bench
        self._folder = folder
        self._numbers = itertools.count(1)
        self.auditor = _new_key(folder, "acme-key")
        self.monitor = _new_key(folder, "eye-key")

    def honest(self) -> RunDirectory:
        """Return a fresh copy of the honest run."""
        return self.copied(self.bench.once("announced", lambda: self.trained(Trainer, frozenset())))

    def cheated(self) -> RunDirectory:
        """Return a fresh copy of a run whose learning rate is 1 % too large at every step."""
        bad = frozenset(range(1, self.bench.steps + 1))
        made = self.bench.once("cheated", lambda: self.trained(RateOnePercent.trainer, bad))
        return self.copied(made)

    def variant(self, changes: tuple[str, ...]) -> "RecordPlace":
        """Return the place of this configuration with `key=value` changes."""
        return self.bench.once(
            ("place", changes),
            lambda: RecordPlace(self.bench.variant(changes), self.new_folder()),
        )

    def canary(self) -> Canary:
        """Return a fresh copy of a run with secret faults, and the answer that names them."""
        run, answer = self.bench.once("canary", self._plant)
        return Canary(self.copied(run), answer)

    def _plant(self) -> tuple[RunDirectory, Answer]:
        root = self.new_folder()
        text = experiment_yaml(self.bench.materials.experiment)
        config = root.with_suffix(".yaml")
        config.write_text(text)
        experiment = load_experiment(config, ("plan.kind=exported",))
        faults = max(1, self.bench.steps // 4)
        answer = plant(experiment, root, faults=faults, answer=root.with_suffix(".answer"))
        return RunDirectory.open(root), answer

    def audit(
        self, run: RunDirectory, *, samples: int | None = None, asked: Asked | None = None
    ) -> Audited:
        """Let acme, or another auditor, audit the sample that its nonce draws."""
        wanted = Wanted(samples=samples or self.bench.steps // 2)
        with self.home():
            return audit(run.root, asked or self.asked(), wanted)

    def asked(self) -> Asked:
        """Return acme's key as the commands take it."""
        return Asked(key=str(self.auditor), operator=AUDITOR)

    def new_auditors(self, count: int) -> list[Asked]:
        """Return auditors of operators of their own, with new keys."""
        numbers = [next(self._numbers) for _ in range(count)]
        return [
            Asked(key=str(_new_key(self._folder, f"auditor-{n}")), operator=f"auditor-{n}.example")
            for n in numbers
        ]

    def watch(self, run: RunDirectory) -> None:
        """Let the monitor sign a status of the log."""
        with self.home(), StatusLog(run.root) as log:
            log.sign(monitor_name(run.root, str(self.monitor), MONITOR))

    def prove(self, run: RunDirectory) -> bytes:
        """Assemble the proof as an honest prover does."""
        with run_log(run) as log:
            return prove(run, log).read_bytes()

    def policy(self, run: RunDirectory) -> Policy:
        """Return the policy of a reader who wants a run sampled by acme and watched by eye."""
        own = load_policy(run.root / "policy.toml")
        return build(
            Draft(
                like=run.root / "policy.toml",
                witnesses=[f"{own.witnesses[0].key.to_text()}={WITNESS}"],
                keys=[
                    (Role.AUDITOR, f"{self.auditor}={AUDITOR}"),
                    (Role.MONITOR, f"{self.monitor}={MONITOR}"),
                ],
                level=Level.SAMPLED.name.lower(),
            )
        )

    def read(self, run: RunDirectory, proof: bytes, *, memory: Memory | None = None) -> Reading:
        """Return what the reader's client makes of a proof."""
        return self.read_under(self.policy(run), proof, memory=memory)

    def read_under(self, policy: Policy, proof: bytes, *, memory: Memory | None = None) -> Reading:
        """Return what the client of a reader with another policy makes of a proof."""
        try:
            return Reading(verify_run(proof, policy, history=memory), "")
        except AttestError as error:
            return Reading(None, str(error))

    @contextlib.contextmanager
    def home(self) -> Generator[None]:
        """Keep nonces and salts in the folder of the red team."""
        before = os.environ.get("ANH_HOME")
        os.environ["ANH_HOME"] = str(self._folder / "home")
        try:
            yield
        finally:
            if before is None:
                del os.environ["ANH_HOME"]
            else:
                os.environ["ANH_HOME"] = before

    def new_folder(self) -> Path:
        """Return a folder that does not exist yet."""
        return self._folder / f"case-{next(self._numbers)}"

    def copied(self, run: RunDirectory) -> RunDirectory:
        """Return a copy of a run, for one attack alone."""
        return RunDirectory.open(Path(shutil.copytree(run.root, self.new_folder())))

    def trained(self, kind: type[Trainer], bad: frozenset[int]) -> RunDirectory:
        """Train a run that acme has announced an audit of, and bring it to its log."""
        run = self.unproven(kind, bad, [self.asked()])
        self.prove(run)
        return run

    def unproven(
        self, kind: type[Trainer], bad: frozenset[int], auditors: Sequence[Asked]
    ) -> RunDirectory:
        """Train a run that auditors announced themselves for, its final record not logged yet."""
        place = self

        class Announced(kind):
            """Lets auditors announce their audits before the first step."""

            def begun(self, directory: Path) -> None:
                run = RunDirectory.open(directory)
                with run_log(run) as log:
                    Shipper(run.root, log).drain()
                with place.home():
                    for asked in auditors:
                        announce(directory, asked)

        return self.bench.train(Announced(self.bench, bad))


def _new_key(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        PrivateKey.generate().save(path, name)
    return path
