"""One experiment, resolved: frozen records from a YAML file and `key=value` overrides.

`model, data, loss, optimizer, training, init, properties, numerics, retention` enter the contract,
by the SHA-256 of `contract_config_bytes`; the other groups are how one trainer runs it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from anh_jax import experiment_fit
from anh_jax import experiment_schema as schemas
from anh_jax.errors import ConfigError
from anh_jax.experiment_choices import DataConfig, LossConfig, ModelConfig
from anh_jax.experiment_errors import Origin, explain
from anh_jax.experiment_groups import (
    Attest,
    Checkpoints,
    Evaluation,
    Init,
    Mesh,
    Numerics,
    Plan,
    Property,
    Retention,
    Runner,
    Tracker,
    Training,
)
from anh_jax.experiment_optimizers import OptimizerConfig
from anh_jax.experiment_reading import (
    apply_override,
    name_imports,
    parse_override,
    read_yaml_file,
)
from anh_jax.experiment_text import commented_yaml
from attest import canonical

CONTRACT_GROUPS = (
    "model",
    "data",
    "loss",
    "optimizer",
    "training",
    "init",
    "properties",
    "numerics",
    "retention",
)
# Genesis commits these, so a resumed attempt must keep them too.
GENESIS_KEYS = (
    "plan",
    "attest.mode",
    "attest.digest",
    "attest.bound",
    "attest.alg",
    "attest.operator",
)
_HEADER = f"""The resolved experiment.
In the contract: {", ".join(CONTRACT_GROUPS)}.
How one trainer runs it: every other group.
"""


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hold everything a run is told, with every default filled in."""

    model: Annotated[ModelConfig, Meta(description="Network to train.")]
    data: Annotated[DataConfig, Meta(description="Examples, for training and held out.")]
    loss: Annotated[LossConfig, Meta(description="What training makes small.")]
    optimizer: Annotated[OptimizerConfig, Meta(description="Rule that moves the parameters.")]
    training: Annotated[Training, Meta(description="Length of the run and its randomness.")]
    init: Annotated[Init, Meta(description="State 0.")] = Init()
    properties: Annotated[
        tuple[Property, ...], Meta(description="What the final weights are promised to do.")
    ] = ()
    numerics: Annotated[
        Numerics, Meta(description="Tolerances by which a replayed step is judged.")
    ] = Numerics()
    retention: Annotated[
        Retention, Meta(description="How long, by whom and at what price a step can be opened.")
    ] = Retention()
    mesh: Annotated[Mesh, Meta(description="Sizes of the device mesh's axes, devices.")] = Mesh()
    plan: Annotated[Plan, Meta(description="How this trainer computes the programs.")] = Plan()
    evaluation: Annotated[Evaluation, Meta(description="When the hold-out set is looked at.")] = (
        Evaluation()
    )
    attest: Annotated[Attest, Meta(description="What is signed, how, and where.")] = Attest()
    runner: Annotated[Runner, Meta(description="Processes that train.")] = Runner()
    trackers: Annotated[
        tuple[Tracker, ...],
        Meta(description="Who is told beside metrics.jsonl: progress, a bar or lines."),
    ] = ("progress",)
    checkpoints: Annotated[Checkpoints, Meta(description="Training checkpoints on disk.")] = (
        Checkpoints()
    )

    def contract_groups(self) -> dict[str, Any]:
        """Return the groups that enter the contract as plain values, without file locations."""
        groups = {name: getattr(self, name) for name in CONTRACT_GROUPS}
        return {name: _without_locations(value) for name, value in groups.items()}


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read a YAML config, apply `dotted.key=value` overrides in order, and check it all.

    Raises ConfigError in one line: the file or the override, the key, and what would fit.
    """
    raw = read_yaml_file(Path(path))
    parsed = tuple(parse_override(text) for text in overrides)
    for override in parsed:
        apply_override(raw, override)
    origin = Origin(file=str(path), overrides=parsed)
    name_imports(raw, origin=origin)
    try:
        experiment = msgspec.convert(raw, Experiment, strict=True)
    except msgspec.ValidationError as error:
        line = explain(error, config_class=Experiment, raw=raw, origin=origin)
        raise ConfigError(line) from None
    experiment_fit.check_values(msgspec.to_builtins(experiment), origin=origin)
    experiment_fit.check_fit(experiment, origin=origin)
    return experiment


def contract_config_bytes(experiment: Experiment) -> bytes:
    """Return the canonical JSON of the contract groups, floats as C99 hex-float text."""
    return canonical.encode(_hex_floats(experiment.contract_groups()))


def experiment_yaml(experiment: Experiment) -> str:
    """Write the resolved experiment as YAML with each field explained; it loads back equal."""
    return commented_yaml(experiment, header=_HEADER)


def check_same_contract(old: Experiment, new: Experiment) -> None:
    """Refuse a change of a key that enters the contract; raises ConfigError naming it."""
    before, after = _flat(old.contract_groups()), _flat(new.contract_groups())
    _refuse_change(before, after, owner="contract")


def check_resumable(old: Experiment, new: Experiment) -> None:
    """Refuse a change of a key that the contract or genesis commits; raises ConfigError naming it.

    Mesh, workers, evaluation, trackers, training checkpoints, log and witnesses may change.
    """
    check_same_contract(old, new)
    before, after = _genesis_values(old), _genesis_values(new)
    _refuse_change(before, after, owner="genesis")


def _genesis_values(experiment: Experiment) -> dict[str, Any]:
    flat = _flat(msgspec.to_builtins(experiment))
    return {
        key: value
        for key, value in flat.items()
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in GENESIS_KEYS)
    }


def _refuse_change(before: dict[str, Any], after: dict[str, Any], *, owner: str) -> None:
    for key in [*before, *after]:
        if before.get(key) != after.get(key):
            raise ConfigError(
                f"{key}: {_shown(before.get(key))} in the run's {owner}, {_shown(after.get(key))} "
                "asked for; keep it to resume, or start a new run with 'anh train'"
            )


def _shown(value: Any) -> str:
    return "unset" if value is None else repr(value)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    return dict(_leaves(value, prefix))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    if not items:
        yield path, value
    for key, item in items:
        yield from _leaves(item, f"{path}.{key}" if path else str(key))


def _without_locations(value: Any) -> Any:
    plain = msgspec.to_builtins(value)
    if isinstance(value, msgspec.Struct):
        for field in schemas.struct_type(type(value)).fields:
            if schemas.is_location(field.type):
                del plain[field.encode_name]
    return plain


def _hex_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hex_floats(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hex_floats(item) for item in value]
    return canonical.hex_float(value) if isinstance(value, float) else value
