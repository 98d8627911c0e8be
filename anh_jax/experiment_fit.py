"""Checks of an experiment that no single field's type can make: values, and fields together."""

import math
import re
from typing import TYPE_CHECKING, Any

from anh_jax.experiment_choices import (
    Digits,
    LanguageModel,
    NextTokenCrossEntropy,
    PythonDocs,
    SoftmaxCrossEntropy,
    TextFile,
    VisionTransformer,
)
from anh_jax.experiment_errors import Origin, Path, refuse

if TYPE_CHECKING:
    from anh_jax.experiment import Experiment

_URL = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
_WITNESS = re.compile(r"[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44} https?://[^\s/?#]+(/[^\s?#]*)?")
_HEX_FLOAT = re.compile(r"^-?0x[01]\.[0-9a-f]+p[+-][0-9]+$")


def check_values(value: Any, *, origin: Origin, path: Path = ()) -> None:
    """Refuse what has no canonical form: non-finite numbers, text outside ASCII, large integers.

    Raises ConfigError naming the key.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if not key.isascii():
                raise refuse(origin, (*path, key), "a key outside ASCII; spell it in ASCII")
            check_values(item, origin=origin, path=(*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_values(item, origin=origin, path=(*path, index))
    elif isinstance(value, float) and not math.isfinite(value):
        raise refuse(origin, path, f"{value} is not finite; give a number")
    elif isinstance(value, int) and abs(value) > 2**53 - 1:
        raise refuse(origin, path, f"{value} is past 2^53 - 1; give a smaller integer")
    elif isinstance(value, str):
        _check_text(value, origin=origin, path=path)


def check_fit(experiment: "Experiment", *, origin: Origin) -> None:
    """Refuse fields that do not fit together; raises ConfigError naming the one to change."""
    for check in (
        _check_training,
        _check_split,
        _check_segments,
        _check_bound,
        _check_log,
        _check_model,
        _check_loss,
        _check_properties,
    ):
        check(experiment, origin)


def _check_text(text: str, *, origin: Origin, path: Path) -> None:
    if not text.isascii() or not text.isprintable():
        raise refuse(origin, path, f"{text!r} holds more than printable ASCII; spell it in ASCII")
    if _HEX_FLOAT.match(text):
        # The contract writes floats in this form; text that looks alike would hash alike.
        raise refuse(origin, path, f"{text!r} reads as a number; write it in decimal")


def _check_training(experiment: "Experiment", origin: Origin) -> None:
    if experiment.training.seed_rule == "beacon":
        message = "beacon has no randomness source yet; use fixed"
        raise refuse(origin, ("training", "seed_rule"), message)


def _check_log(experiment: "Experiment", origin: Origin) -> None:
    attest = experiment.attest
    served = _URL.fullmatch(attest.log) is not None
    if attest.log != "local" and not served:
        message = (
            f"{attest.log!r}: use local, or the address of a served log as https://log.example"
        )
        raise refuse(origin, ("attest", "log"), message)
    _check_witnesses(experiment, origin, served=served)


def _check_witnesses(experiment: "Experiment", origin: Origin, *, served: bool) -> None:
    witnesses = experiment.attest.witnesses
    if served and witnesses != ("local",):
        message = f"{list(witnesses)}: whoever serves the log asks its witnesses; use [local]"
        raise refuse(origin, ("attest", "witnesses"), message)
    if "local" not in witnesses:
        message = f"{list(witnesses)}: a log in the run directory has local among its witnesses"
        raise refuse(origin, ("attest", "witnesses"), message)
    for witness in witnesses:
        if witness != "local" and not _WITNESS.fullmatch(witness):
            message = (
                f"{witness!r}: use local, or 'VKEY URL': a witness's vkey, a space, its address"
            )
            raise refuse(origin, ("attest", "witnesses"), message)


def _check_split(experiment: "Experiment", origin: Origin) -> None:
    size, mesh = experiment.training.batch_size, experiment.mesh
    microbatch = experiment.plan.microbatch
    if microbatch is not None and size % microbatch:
        message = f"{microbatch} does not divide training.batch_size ({size}); choose a divisor"
        raise refuse(origin, ("plan", "microbatch"), message)
    shards = mesh.data * mesh.fsdp
    for part, key in ((size, ("training", "batch_size")), (microbatch, ("plan", "microbatch"))):
        if part is not None and part % shards:
            message = f"{part} does not split over mesh.data x mesh.fsdp ({shards}); use a multiple"
            raise refuse(origin, key, message)


def _check_segments(experiment: "Experiment", origin: Origin) -> None:
    attest, every = experiment.attest, experiment.checkpoints.every_steps
    if not attest.segments.startswith("every ") or not attest.digest.startswith("every "):
        return  # auto looks after itself: a training checkpoint waits for the next digested state
    if every % int(attest.digest.removeprefix("every ")):
        message = (
            f"a segment ends at every training checkpoint, where the state must be digested: "
            f"checkpoints.every_steps ({every}) is no multiple of attest.digest ({attest.digest}); "
            "make it one, or use off"
        )
        raise refuse(origin, ("attest", "segments"), message)


def _check_bound(experiment: "Experiment", origin: Origin) -> None:
    if experiment.attest.bound == "off":
        return
    if experiment.attest.mode == "off" or experiment.plan.kind == "native":
        message = "no row of ours is signed that could declare one; use off"
        raise refuse(origin, ("attest", "bound"), message)
    if experiment.runner.workers > 1:
        message = (
            f"it is measured by one process, runner.workers is {experiment.runner.workers}; use off"
        )
        raise refuse(origin, ("attest", "bound"), message)


def _check_model(experiment: "Experiment", origin: Origin) -> None:
    model, data = experiment.model, experiment.data
    if isinstance(model, VisionTransformer | LanguageModel) and model.width % model.heads:
        message = f"{model.heads} does not divide model.width ({model.width}); choose a divisor"
        raise refuse(origin, ("model", "heads"), message)
    if isinstance(model, VisionTransformer) and isinstance(data, Digits) and 8 % model.patch_size:
        message = f"{model.patch_size} does not divide the image's edge (8); choose a divisor"
        raise refuse(origin, ("model", "patch_size"), message)
    if (
        isinstance(model, LanguageModel)
        and isinstance(data, PythonDocs | TextFile)
        and model.sequence_length != data.sequence_length
    ):
        message = f"{data.sequence_length}, but model.sequence_length is {model.sequence_length}"
        raise refuse(origin, ("data", "sequence_length"), f"{message}; make them equal")


def _check_loss(experiment: "Experiment", origin: Origin) -> None:
    loss, data = experiment.loss, experiment.data
    text = isinstance(data, PythonDocs | TextFile)
    if text and isinstance(loss, SoftmaxCrossEntropy):
        message = "needs label, which text has not; use next_token_cross_entropy"
        raise refuse(origin, ("loss", "name"), message)
    if isinstance(data, Digits) and isinstance(loss, NextTokenCrossEntropy):
        message = "needs tokens, which digits have not; use softmax_cross_entropy"
        raise refuse(origin, ("loss", "name"), message)


def _check_properties(experiment: "Experiment", origin: Origin) -> None:
    names = [named.name for named in experiment.properties]
    for index, promised in enumerate(experiment.properties):
        if promised.numerator > promised.denominator:
            message = f"{promised.numerator} is more than the denominator ({promised.denominator})"
            raise refuse(origin, ("properties", index, "numerator"), message)
        if names.index(promised.name) != index:
            message = f"{promised.name} is named twice; rename one"
            raise refuse(origin, ("properties", index, "name"), message)
    data = experiment.data
    if names and isinstance(data, Digits | PythonDocs | TextFile) and not data.holdout.fraction:
        message = "0 leaves nothing to judge properties on; hold examples out"
        raise refuse(origin, ("data", "holdout", "fraction"), message)
