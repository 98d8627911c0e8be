"""The exact words of every kind of config error: what, where, and what would fit."""

from pathlib import Path

import pytest

from anh_jax.errors import ConfigError
from anh_jax.experiment import load_experiment

DIGITS = Path(__file__).resolve().parents[2] / "configs" / "digits.yaml"

FILE = """\
model: {name: mlp, hidden: [4]}
data: {name: digits}
loss: {name: softmax_cross_entropy}
optimizer: {name: sgd, learning_rate: 1e-3}
training: {steps: 5, batch_size: 8}
"""


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "learning_rate: 1e-3",
            "learning_rte: 1e-3",
            "optimizer.learning_rte: unknown field (did you mean learning_rate?)",
        ),
        (
            "training: {steps: 5,",
            "steps: 5\ntraining: {",
            "steps: unknown field (did you mean training.steps?)",
        ),
        (
            "steps: 5,",
            "",
            "training.steps: missing; add it: Optimizer steps in the run.",
        ),
        ("loss: {name: softmax_cross_entropy}\n", "", "loss: missing; add it: What training"),
        (
            "data: {name: digits}",
            "data: {}",
            "data.name: missing; choose one of digits, python_docs, text, arrays, "
            "or use import: package.module:function",
        ),
        (
            "name: mlp",
            "name: mpl",
            "model.name: text 'mpl' is not one of mlp, vision_transformer, convolution, "
            "language_model, import (did you mean mlp?)",
        ),
        (
            "hidden: [4]",
            "hidden: [4], depth: 2",
            "model.depth: unknown field of mlp (its fields: hidden, classes; to choose anew give "
            "it whole: model='{name: mlp, ...}')",
        ),
        ("steps: 5", "steps: five", "training.steps: expected int, got text 'five'"),
        ("steps: 5", "steps: 0", "training.steps: expected int >= 1, got 0"),
        ("steps: 5", "steps: true", "training.steps: expected int, got True"),
        ("steps: 5", "steps: [5]", "training.steps: expected int, got a list"),
        ("steps: 5", "steps: ", "training.steps: expected int, got nothing"),
        ("hidden: [4]", "hidden: [4, 0]", "model.hidden.1: expected int >= 1, got 0"),
        ("hidden: [4]", "hidden: 4", "model.hidden: expected a list, got 4"),
        ("learning_rate: 1e-3", "learning_rate: .nan", "optimizer.learning_rate: expected float"),
        (
            "learning_rate: 1e-3",
            "learning_rate: .inf",
            "optimizer.learning_rate: inf is not finite; give a number",
        ),
        ("data: {name: digits}", "data: digits", "data: expected a group of keys, got text 'digi"),
        (
            "name: mlp",
            "import: nets:build, name: mlp",
            "model: has both name and import; keep one",
        ),
        (
            "name: mlp, hidden: [4]",
            "import: nets.build",
            "model.import: text 'nets.build' does not fit: Function to call, as package.module:fun",
        ),
        (
            "name: mlp, hidden: [4]",
            "import: nets:build, options: {rate: 0x1.8p+0}",
            "model.options.rate: '0x1.8p+0' reads as a number; write it in decimal",
        ),
        (
            "name: mlp, hidden: [4]",
            "import: nets:build, options: {n: 9007199254740993}",
            "model.options.n: 9007199254740993 is past 2^53 - 1; give a smaller integer",
        ),
        (
            "name: mlp, hidden: [4]",
            "import: nets:build, options: {n: größe}",
            "model.options.n: 'größe' holds more than printable ASCII; spell it in ASCII",
        ),
        ("hidden: [4]", "5: [4]", "model.5: a key must be ASCII text; quote a number"),
        ("batch_size: 8", "batch_size: 8, seed_rule: beacon", "training.seed_rule: beacon has no"),
        (
            "batch_size: 8}",
            "batch_size: 8}\nplan: {microbatch: 3}",
            "plan.microbatch: 3 does not divide training.batch_size (8); choose a divisor",
        ),
        (
            "batch_size: 8}",
            "batch_size: 8}\nmesh: {data: 3}",
            "training.batch_size: 8 does not split over mesh.data x mesh.fsdp (3); use a multiple",
        ),
        (
            "softmax_cross_entropy",
            "next_token_cross_entropy",
            "loss.name: needs tokens, which digits have not; use softmax_cross_entropy",
        ),
        (
            "{name: digits}",
            "{name: python_docs}",
            "loss.name: needs label, which text has not; use next_token_cross_entropy",
        ),
        (
            "{name: mlp, hidden: [4]}",
            "{name: vision_transformer, width: 10, heads: 4}",
            "model.heads: 4 does not divide model.width (10); choose a divisor",
        ),
        (
            "{name: mlp, hidden: [4]}",
            "{name: vision_transformer, patch_size: 3}",
            "model.patch_size: 3 does not divide the image's edge (8); choose a divisor",
        ),
        (
            "batch_size: 8}",
            "batch_size: 8}\nproperties: [{name: a, numerator: 3, denominator: 2}]",
            "properties.0.numerator: 3 is more than the denominator (2)",
        ),
        (
            "{name: digits}",
            "{name: digits, holdout: {fraction: 0}}\n"
            "properties: [{name: a, numerator: 1, denominator: 2}]",
            "data.holdout.fraction: 0 leaves nothing to judge properties on; hold examples out",
        ),
    ],
)
def test_error_names_file_key_and_fix(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    assert old in FILE
    path.write_text(FILE.replace(old, new), encoding="utf-8")
    found = refusal(path)
    assert found.startswith(f"{path}: {message}"), found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml: empty; a config has at least model, data, loss, optimizer"),
        ("- 1\n", "x.yaml: expected groups of keys, got list"),
        ("a: 1\nb: [1\nc: 2\n", "x.yaml:3: not YAML: expected ',' or ']', but got ':'"),
        ("a: 1\na: 2\n", "x.yaml:2: not YAML: found duplicate key"),
        ("a: 1\n\tb: 2\n", "x.yaml:2: not YAML: "),
        ("a: !!python/name:os.system x\n", "x.yaml:1: not YAML: could not determine a constr"),
        ("a: *b\n", "x.yaml:1: not YAML: found undefined alias"),
        ("a: \x00\n", "x.yaml: not YAML: "),
        ("a: " + "[" * 1000 + "\n", "x.yaml: not YAML: nested too deep"),
        ("a: !!binary aGk=\n", "x.yaml: a: bytes is no config value; use text or numbers"),
    ],
)
def test_text_that_is_no_config_names_file_and_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    assert refusal(path).startswith(f"{tmp_path}/{message}")


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, binary = tmp_path / "no.yaml", tmp_path / "b.yaml"
    binary.write_bytes(b"a: \xff\n")
    assert refusal(missing).startswith(f"{missing}: no such file; ")
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read (Is a directory)"
    assert refusal(binary) == f"{binary}: not UTF-8 text (byte 3); save it as UTF-8"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.learning_rte=1e-3",
            "optimizer.learning_rte: unknown field (did you mean learning_rate?)",
        ),
        ("steps=3", "steps: unknown field (did you mean training.steps?)"),
        ("nothing.at=1", "nothing: unknown field (fields here: model, data, loss, "),
        ("training.steps=none", "training.steps: expected int, got text 'none'"),
        ("training={steps: 3}", "training.batch_size: missing; add it: Examples per step"),
        ("training.steps.x=3", "training.steps.x: training.steps is no group of keys"),
        ("properties.1.margin=7", "properties.1.margin: properties is a list of 1, counted from 0"),
        ("properties.x=7", "properties.x: properties is a list of 1, counted from 0"),
        ("optimizer.learning_rate=[1", "not YAML: expected ',' or ']', but got '<stream end>'"),
        ("training.seed=9007199254740992", "training.seed: expected int <= 9007199254740991, got"),
        ("model.import=a:b", "model: has both name and import; keep one, on the command line as "),
        ("attest.mode=of", "attest.mode: text 'of' is not one of full, off (did you mean off?)"),
        (
            "attest.digest=each 2",
            "attest.digest: text 'each 2' does not fit: State digest policy, 'every N'",
        ),
        ("attest.digest=20", "attest.digest: 20 does not fit (did you mean 'every 20'?)"),
        ("attest.segments=20", "attest.segments: 20 does not fit (did you mean 'every 20'?)"),
        (
            "attest.segments=every20",
            "attest.segments: text 'every20' does not fit (did you mean 'every 20'?)",
        ),
        ("training.steps", "write it as key=value, such as training.steps=100"),
        ("=3", "write it as key=value, such as training.steps=100"),
        ("training..steps=3", "write it as key=value, such as training.steps=100"),
    ],
)
def test_error_names_the_override_that_made_it(override: str, message: str) -> None:
    assert refusal(DIGITS, override).startswith(f"override '{override}': {message}")


def test_new_choice_over_an_old_one_says_to_give_it_whole() -> None:
    message = refusal(DIGITS, "model.name=mlp")
    assert "unknown field of mlp" in message
    assert "give it whole: model='{name: mlp, ...}'" in message


def test_date_is_text() -> None:
    experiment = load_experiment(DIGITS, ["retention.deadline=2027-01-31"])
    assert experiment.retention.deadline == "2027-01-31"
