"""Config: what it refuses and how it says so, what enters the contract, what may change."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from anh_jax import experiment_schema as schemas
from anh_jax.errors import ConfigError
from anh_jax.experiment import (
    CONTRACT_GROUPS,
    Experiment,
    check_resumable,
    check_same_contract,
    contract_config_bytes,
    experiment_yaml,
    load_experiment,
)
from anh_jax.experiment_choices import Mlp

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "configs" / "digits.yaml"
LANGUAGE = ROOT / "configs" / "python_docs_lm.yaml"
GOLDEN = ROOT / "tests" / "golden"

MINIMAL = """\
model: {name: mlp}
data: {name: digits}
loss: {name: softmax_cross_entropy}
optimizer: {name: sgd, learning_rate: 1e-3}
training: {steps: 5, batch_size: 8}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_one_e_minus_three_is_a_number_and_off_is_a_word(tmp_path: Path) -> None:
    experiment = load_experiment(written(tmp_path, MINIMAL), ["attest.mode=off"])
    assert experiment.optimizer.learning_rate == 1e-3
    assert experiment.attest.mode == "off"


def test_defaults_of_class_f32_are_the_numerics_page() -> None:
    rules = load_experiment(DIGITS).numerics.rules
    assert (rules.name, rules.c, rules.c_row) == ("f32", 4.0, 10.0)
    assert (rules.cap, rules.a2, rules.a2_cold) == (1e-4, 1e-3, 0.1)
    assert rules.unit_roundoff == float.fromhex("0x1p-24")


def test_a_class_brings_its_own_tolerances_and_a_set_one_replaces_them() -> None:
    rules = load_experiment(DIGITS, ["numerics={class: bf16, a2: 0.01}"]).numerics.rules
    assert (rules.name, rules.c, rules.c_row, rules.cap) == ("bf16", 8.0, 8.0, 0.1)
    assert (rules.a2, rules.a2_cold) == (0.01, None)


def test_a_misspelt_numerics_class_is_answered_with_the_classes() -> None:
    with pytest.raises(ConfigError, match=r"numerics\.class.*bf16_f32acc"):
        load_experiment(DIGITS, ["numerics.class=bf16_f32ac"])


def test_overrides_are_yaml_and_the_last_one_wins() -> None:
    overrides = ["training.steps=7", "model={name: mlp, hidden: [3, 4]}", "training.steps=9"]
    experiment = load_experiment(DIGITS, [*overrides, "properties.0.margin=5", "mesh.data=2"])
    assert experiment.training.steps == 9
    assert experiment.properties[0].margin == 5
    assert experiment.model == Mlp(hidden=(3, 4))


def test_import_is_a_choice_with_free_options() -> None:
    override = "model={import: my.nets:build, options: {layers: 3, rate: 0.5}}"
    groups = load_experiment(DIGITS, [override]).contract_groups()
    assert groups["model"] == {
        "name": "import",
        "import": "my.nets:build",
        "options": {"layers": 3, "rate": 0.5},
    }


@pytest.mark.parametrize("config", [DIGITS, LANGUAGE], ids=["digits", "python_docs_lm"])
def test_shipped_config_has_its_golden_contract_groups(config: Path) -> None:
    found = contract_config_bytes(load_experiment(config))
    golden = (GOLDEN / f"{config.stem}_config.json").read_text(encoding="utf-8")
    assert json.dumps(json.loads(found), indent=1, sort_keys=True) + "\n" == golden


@pytest.mark.parametrize("config", [DIGITS, LANGUAGE], ids=["digits", "python_docs_lm"])
def test_printed_config_explains_every_key_and_loads_back_equal(
    config: Path, tmp_path: Path
) -> None:
    experiment = load_experiment(config)
    text = experiment_yaml(experiment)
    assert load_experiment(written(tmp_path, text)) == experiment
    lines = text.splitlines()
    for number, line in enumerate(lines):
        explained = "#" in line or (number > 0 and lines[number - 1].lstrip().startswith("#"))
        assert explained or line.lstrip().startswith("- "), line


def test_every_field_is_described() -> None:
    def undescribed(record: inspect.Type, path: str) -> list[str]:
        found: list[str] = []
        members = [*schemas.choices(record).values()] or [schemas.resolve(record, None)]
        for member in members:
            if isinstance(member, inspect.VarTupleType):
                found += undescribed(member.item_type, path)
            if isinstance(member, inspect.StructType):
                assert member.forbid_unknown_fields
                assert member.cls.__struct_config__.frozen
                for field in member.fields:
                    here = f"{path}.{field.encode_name}"
                    if not schemas.description(field.type).endswith("."):
                        found.append(here)
                    found += undescribed(field.type, here)
        return found

    assert undescribed(schemas.struct_type(Experiment), "") == []


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    if not isinstance(value, dict | list | tuple):
        return [(path, value)]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, item in items for leaf in leaves(item, (*path, key))]


def changed(value: Any) -> Any:
    """Another value of the same type that stays within every field's bounds."""
    if isinstance(value, float):
        return value / 2 if value else 0.25
    return value + 1 if isinstance(value, int) else f"{value}x"


FIXED = ("name", "class", "kind", "seed_rule", "patch_size", "heads", "sequence_length")


@pytest.mark.parametrize("config", [DIGITS, LANGUAGE], ids=["digits", "python_docs_lm"])
def test_every_contract_key_changes_the_contract_and_its_change_is_named(
    config: Path, tmp_path: Path
) -> None:
    base = load_experiment(config)
    config = written(tmp_path, experiment_yaml(base))
    tried = 0
    for path, value in leaves(base.contract_groups()):
        if path[-1] in FIXED or value is None:
            continue
        key = ".".join(map(str, path))
        value = value * 2 if path[-1] == "width" else changed(value)
        other = load_experiment(config, [f"{key}={json.dumps(value)}"])
        assert contract_config_bytes(other) != contract_config_bytes(base), key
        with pytest.raises(ConfigError, match=f"^{key}: "):
            check_same_contract(base, other)
        tried += 1
    assert tried > 20


@pytest.mark.parametrize(
    "override",
    [
        "mesh.data=2",
        "runner.workers=2",
        "evaluation.every_steps=7",
        "trackers=[]",
        "checkpoints.keep=9",
        "attest.digester=device",
    ],
)
def test_key_of_how_one_trainer_runs_may_change_on_resume(override: str) -> None:
    base, other = load_experiment(DIGITS), load_experiment(DIGITS, [override])
    assert base != other
    assert contract_config_bytes(base) == contract_config_bytes(other)
    check_resumable(base, other)


@pytest.mark.parametrize(
    "override",
    ["plan.kind=native", "plan.microbatch=64", "attest.alg=sha256", "attest.digest=auto"],
)
def test_key_that_genesis_commits_may_not_change_on_resume(override: str) -> None:
    base, other = load_experiment(DIGITS), load_experiment(DIGITS, [override])
    check_same_contract(base, other)
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=f"^{key}: .* in the run's genesis, "):
        check_resumable(base, other)


def test_changed_contract_key_says_both_values_and_what_to_do() -> None:
    base, other = load_experiment(DIGITS), load_experiment(DIGITS, ["training.steps=400"])
    with pytest.raises(ConfigError) as caught:
        check_resumable(base, other)
    assert str(caught.value) == (
        "training.steps: 300 in the run's contract, 400 asked for; keep it to resume, or start a "
        "new run with 'anh train'"
    )


def test_where_data_lie_is_not_in_the_contract(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL)
    here = load_experiment(path, ["data={name: arrays, train: a.npz, holdout: b.npz}"])
    there = load_experiment(path, ["data={name: arrays, train: /else/a, holdout: /else/b}"])
    assert here.contract_groups()["data"] == {"name": "arrays"}
    assert contract_config_bytes(here) == contract_config_bytes(there)
    check_resumable(here, there)


WITNESS = "w.example/a+d41e9006+BOctVDQwVW+5d5UVLgg8041gWp+vLcKg2AiGVfg0Hg6e https://w.example"


def test_records_may_go_to_a_served_log_and_a_local_one_may_have_more_witnesses() -> None:
    served = load_experiment(DIGITS, ["attest.log=https://log.example/runs"])
    assert served.attest.log == "https://log.example/runs"
    witnessed = load_experiment(DIGITS, [f"attest.witnesses=[local, '{WITNESS}']"])
    assert witnessed.attest.witnesses == ("local", WITNESS)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["attest.log=ftp://log.example"], r"attest\.log: .*use local, or the address"),
        (["attest.log=https://log.example/?a=b"], r"attest\.log: .*use local, or the address"),
        (["attest.log=file:///etc/passwd"], r"attest\.log: .*use local, or the address"),
        (["attest.witnesses=[https://w.example]"], r"attest\.witnesses: .*has local among"),
        (["attest.witnesses=[local, https://w.example]"], r"attest\.witnesses: .*'VKEY URL'"),
        (
            ["attest.log=https://log.example", f"attest.witnesses=[local, '{WITNESS}']"],
            r"attest\.witnesses: .*whoever serves the log",
        ),
    ],
)
def test_log_or_witness_that_nobody_can_reach_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_experiment(DIGITS, overrides)


def test_only_contract_groups_are_in_the_contract_bytes() -> None:
    experiment = load_experiment(DIGITS)
    assert tuple(experiment.contract_groups()) == CONTRACT_GROUPS
    assert tuple(json.loads(contract_config_bytes(experiment))) == tuple(sorted(CONTRACT_GROUPS))


def numeric_fields() -> st.SearchStrategy[str]:
    """Override texts of numeric fields, from each field's own bounds."""
    integers = {
        "training.steps": (1, 2**32 - 1),
        "training.seed": (0, 2**53 - 1),
        "model.depth": (1, 4096),
        "numerics.a2": (1, 10),
        "checkpoints.keep": (1, 2**31),
        "properties.0.margin": (0, 2**53 - 1),
    }
    floats = ("optimizer.learning_rate", "numerics.c", "numerics.cap", "optimizer.epsilon")
    number = st.floats(min_value=1e-300, max_value=1e300)
    one_of = [
        st.integers(*bounds).map(lambda value, key=key: f"{key}={value}")
        for key, bounds in integers.items()
    ]
    one_of += [number.map(lambda value, key=key: f"{key}={value!r}") for key in floats]
    return st.one_of(one_of)


@settings(deadline=None, max_examples=50)
@given(overrides=st.lists(numeric_fields(), max_size=6))
def test_any_numbers_survive_printing_and_loading(
    overrides: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    experiment = load_experiment(DIGITS, overrides)
    path = tmp_path_factory.getbasetemp() / "printed.yaml"
    path.write_text(experiment_yaml(experiment), encoding="utf-8")
    again = load_experiment(path)
    assert again == experiment
    assert contract_config_bytes(again) == contract_config_bytes(experiment)


@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=40) | st.from_regex(r"[a-z]{1,9}(\.[a-z0-9_]{1,9}){0,3}=.{0,12}"))
def test_no_override_fails_in_any_other_way_than_one_line(text: str) -> None:
    try:
        load_experiment(DIGITS, [text])
    except ConfigError as error:
        assert "\n" not in str(error)
        assert "override" in str(error) or str(DIGITS) in str(error)


@settings(deadline=None, max_examples=50)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
        max_leaves=6,
    ),
    key=st.sampled_from(["model", "data.holdout", "optimizer.schedule", "properties", "trackers"]),
)
def test_no_value_fails_in_any_other_way_than_one_line(value: Any, key: str) -> None:
    try:
        load_experiment(DIGITS, [f"{key}={json.dumps(value)}"])
    except ConfigError as error:
        assert "\n" not in str(error)
