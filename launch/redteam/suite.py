"""Carries out the attacks that were asked for and counts what the checks made of them."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anh_jax.preparation import prepare
from anh_jax.redteam.attack import Attack
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.catalogue import STEP_ATTACKS
from anh_jax.redteam.honest import HonestCount, count_honest
from anh_jax.redteam.table import Line, line_of
from anh_jax.redteam.victims import DIGITS, victim
from launch.errors import CommandError
from launch.redteam import auditors, contracts, records, sampling
from launch.redteam.place import RecordPlace

RECORD_ATTACKS: tuple[Attack[RecordPlace], ...] = (
    *records.ATTACKS,
    *sampling.ATTACKS,
    *auditors.ATTACKS,
    *contracts.ATTACKS,
)
HONEST = "honest"
Told = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What a red team found: attacks, attacks with nothing to attack here, honest variants."""

    lines: tuple[Line, ...]
    skipped: dict[str, str]
    honest: HonestCount | None
    config: str = field(default="")

    @property
    def missed(self) -> tuple[str, ...]:
        """Return the attacks that were expected to be detected and were not, always."""
        return tuple(line.name for line in self.lines if not line.met)

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "config": self.config,
            "attacks": [line.document() for line in self.lines],
            "skipped": self.skipped,
            "honest": None if self.honest is None else self.honest.document(),
        }


def names() -> tuple[str, ...]:
    """Return the names of all attacks, and `honest` for the variants that are none."""
    return (*(attack.name for attack in catalogue()), HONEST)


def catalogue() -> tuple[Attack[Any], ...]:
    """Return every attack there is."""
    return (*STEP_ATTACKS, *RECORD_ATTACKS)


def carry_out(
    config: Path | None, wanted: Sequence[str], *, rounds: int, folder: Path | None, told: Told
) -> Result:
    """Carry out attacks by name, all and the honest variants where none is named.

    `folder` keeps the runs; None forgets them. `told` is called with a line for each attack.
    Raises CommandError for a name that is unknown.
    """
    if unknown := sorted(set(wanted) - set(names())):
        raise CommandError(f"--attack {unknown[0]}: no such attack; --list names them")
    with tempfile.TemporaryDirectory(prefix="anh-redteam-") as temporary:
        root = Path(temporary) if folder is None else folder / "runs"
        root.mkdir(parents=True, exist_ok=True)
        if config is None:
            config = root / "digits.yaml"
            config.write_text(DIGITS)
        return _carried_out(config, set(wanted or names()), rounds, root, told)


def _carried_out(config: Path, wanted: set[str], rounds: int, root: Path, told: Told) -> Result:
    bench = RedTeamBench(prepare(victim(config)), root)
    place = RecordPlace(bench, root / "records")
    lines: list[Line] = []
    skipped: dict[str, str] = {}

    def attacked(attack: Attack[Any], at: Any) -> None:
        obstacle = attack.obstacle(at)
        if obstacle:
            skipped[attack.name] = obstacle
            told(f"{attack.name}: {obstacle}")
            return
        outcome = attack.carry_out(at, rounds=rounds)
        lines.append(line_of(attack, outcome, attack.expected_at(at)))
        told(f"{attack.name}: {lines[-1].detected} of {lines[-1].n}")

    for attack in STEP_ATTACKS:
        if attack.name in wanted:
            attacked(attack, bench)
    for attack in RECORD_ATTACKS:
        if attack.name in wanted:
            attacked(attack, place)
    honest = count_honest(bench, rounds=rounds, told=told) if HONEST in wanted else None
    return Result(tuple(lines), skipped, honest, config.name)
