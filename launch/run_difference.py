"""How two runs differ: contract, programs, data, config, environment, and the first step apart."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from anh_jax.line import walk_line
from anh_jax.run_directory import RunDirectory
from attest.statements import Attempt, Genesis, Row, decode_statement
from launch.output import flat
from launch.step_numbers import genesis_of


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that two runs have differently; None where a run has it not at all."""

    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True, slots=True)
class StepApart:
    """The first step at which two runs differ, and in what, in the order it was computed."""

    step: int
    changes: tuple[Change, ...]

    @property
    def hint(self) -> str:
        """Return one sentence about where to look; all earlier steps were equal."""
        names = {change.name for change in self.changes}
        if self.step == 0:
            return "the runs start from different states: seed, init program or backend"
        if names & {"batch root", "weight"}:
            return "equal states, different batches: data, order or seed"
        if names & {"loss", "gradient root", "gradient norm", "finite"}:
            return (
                "equal state and batch, different gradient: program, mesh, hardware, flags, or "
                "silent corruption"
            )
        if "state root" in names:
            return "equal gradient, different state: update program, constants, or corruption"
        return "only what the trainer declared differs, not what was computed"


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that two runs have differently; `compared` counts the steps both have signed."""

    programs: tuple[Change, ...]
    data: tuple[Change, ...]
    contract: tuple[Change, ...]
    config: tuple[Change, ...]
    environment: tuple[Change, ...]
    apart: StepApart | None
    compared: int

    def sections(self) -> dict[str, tuple[Change, ...]]:
        """Return the lists of changes by name, in the order of the answer."""
        return {
            "programs": self.programs,
            "data": self.data,
            "contract": self.contract,
            "config": self.config,
            "environment": self.environment,
        }

    @property
    def equal(self) -> bool:
        """Tell whether nothing differs."""
        return self.apart is None and not any(self.sections().values())


def compare(first: Path, second: Path) -> Difference:
    """Compare two run directories; raises AnhError or AttestError where one cannot be read."""
    runs = RunDirectory.open(first), RunDirectory.open(second)
    contracts = [flat(run.contract()) for run in runs]
    changes = list(changed(contracts[0], contracts[1]))
    # The config's digest is in the contract; what changed in it is said by its own section.
    named = ("programs.", "data.", "config")
    genesis = [genesis_of(run.statement("genesis"), run.root) for run in runs]
    ids = [run.statement("genesis").record_hash() for run in runs]
    rows = [
        [signed.row for signed in walk_line(run, run_id=name).rows]
        for run, name in zip(runs, ids, strict=True)
    ]
    return Difference(
        programs=tuple(c for c in changes if c.name.startswith("programs.")),
        data=tuple(c for c in changes if c.name.startswith("data.")),
        contract=tuple(c for c in changes if not c.name.startswith(named)),
        config=_config(first / "config.yaml", second / "config.yaml"),
        environment=tuple(
            changed(_environment(runs[0], genesis[0]), _environment(runs[1], genesis[1]))
        ),
        apart=_apart(genesis[0], genesis[1], rows[0], rows[1]),
        compared=min(len(rows[0]), len(rows[1])),
    )


def changed(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[Change]:
    """Yield what differs between two flat mappings, by name."""
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            yield Change(name, first.get(name), second.get(name))


def _config(first: Path, second: Path) -> tuple[Change, ...]:
    texts = [path.read_text(encoding="utf-8") if path.is_file() else "" for path in (first, second)]
    if texts[0] == texts[1]:
        return ()
    # Only here: equal configs are compared without the packages of the train extra.
    from ruamel.yaml import YAML

    reader = YAML(typ="safe", pure=True)
    values = [flat(reader.load(text) or {}) for text in texts]
    return tuple(changed(values[0], values[1]))


def _environment(run: RunDirectory, genesis: Genesis) -> dict[str, str]:
    found = {"plan": genesis.plan, "trainer": genesis.trainer, "alg": genesis.alg}
    found |= {f"environment.{name}": str(v) for name, v in genesis.environment.items()}
    found |= {f"executionClass.{name}": str(v) for name, v in genesis.execution_class.items()}
    for number in run.attempts():
        attempt = decode_statement(run.statement(f"attempt-{number}").payload)
        if isinstance(attempt, Attempt):
            mesh = attempt.mesh
            found[f"attempt {number}"] = (
                f"from step {attempt.step}, {attempt.processes} processes, "
                f"mesh {mesh.data} x {mesh.fsdp} x {mesh.tensor}"
            )
    return found


def _apart(
    genesis: Genesis, other_genesis: Genesis, rows: list[Row], other_rows: list[Row]
) -> StepApart | None:
    if genesis.state_root != other_genesis.state_root:
        change = Change("state root", genesis.state_root, other_genesis.state_root)
        return StepApart(0, (change,))
    for row, other in zip(rows, other_rows, strict=False):
        changes = tuple(_row_changes(row, other))
        if changes:
            return StepApart(row.step, changes)
    return None


def _row_changes(row: Row, other: Row) -> Iterator[Change]:
    """Yield the fields that differ, causes before effects; `run` and `prev` differ by name only."""
    pairs = (
        ("batch root", row.batch_root, other.batch_root),
        ("weight", row.scalars.weight, other.scalars.weight),
        ("loss", row.loss, other.loss),
        ("gradient root", row.gradient_root, other.gradient_root),
        ("gradient norm", row.scalars.global_norm, other.scalars.global_norm),
        ("finite", str(row.scalars.finite), str(other.scalars.finite)),
        ("bound", row.bound, other.bound),
    )
    for name, first, second in pairs:
        if first != second:
            yield Change(name, first, second)
    # A state that one policy skipped was not compared, so it did not differ.
    states = (row.state_root, other.state_root)
    if None not in states and states[0] != states[1]:
        yield Change("state root", *states)
