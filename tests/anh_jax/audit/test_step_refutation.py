"""A wrong update is refuted by one element of it, from what was committed alone."""

import copy
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.audit.init_refutation import judge_init
from anh_jax.audit.refuting_steps import Spot, refute_start, refute_step, step_file_of, worst_spot
from anh_jax.audit.step_refutation import judge_step
from anh_jax.bounds.statistic import Statistic
from anh_jax.bounds.update_stage import UpdateStage
from anh_jax.digest.host import tree_digest
from anh_jax.errors import AnhError, ProgramError
from anh_jax.workbench import MeshSizes
from attest import step_refutation
from attest.envelope import sign
from attest.errors import AttestError, RefusedError
from attest.init_refutation import InitRefutation
from attest.keys import PrivateKey
from attest.signed_step import statement_of, verify_step
from attest.statements import Attempt, Step, encode_statement
from attest.step_refutation import StepRefutation

KERNEL = ("parameters", "layers", "0", "kernel")


@pytest.fixture(scope="module")
def files(cheat, trainers, workshop):
    """Return a function that trains with a fault and refutes its bad step."""
    made = {}

    def refuted(fault) -> StepRefutation:
        name = type(fault).__name__
        if name not in made:
            run = cheat(fault)
            opened = trainers.opened_step(workshop, run, fault, trainers.BAD)
            made[name] = refute_step(run, workshop.materials, opened, alg="blake3")
        return made[name]

    return refuted


@pytest.fixture(scope="module")
def good(honest, trainers, workshop):
    """Return a step of the honest run, opened."""
    return trainers.opened_step(workshop, honest, trainers.Fault(), trainers.BAD)


@pytest.fixture(scope="module")
def opened_honestly(good, honest, workshop):
    """Return a function that opens the honest step at one element."""

    def at(path, element=0) -> StepRefutation:
        spot = Spot(path, element)
        return step_file_of(honest, workshop.materials, good, spot, alg="blake3")

    return at


def test_larger_rate_is_refuted_by_one_element(files, trainers) -> None:
    made = files(trainers.LargerRate(1.01))
    data = made.to_bytes()
    found = judge_step(StepRefutation.from_bytes(data))
    assert not found.found.accepted and found.found.value > 10
    assert found.shown.accused.row.step == trainers.BAD
    assert len(data) < 1 << 20


def test_wrong_slot_is_refuted_although_its_parameter_follows_from_it(files, trainers) -> None:
    found = judge_step(files(trainers.LateSlot()))
    assert not found.found.accepted and found.found.where.startswith("optimizer/first")


def test_copied_path_that_changed_is_refuted(files, trainers) -> None:
    found = judge_step(files(trainers.OtherKey()))
    assert not found.found.accepted and "no program writes it" in found.words


def test_counter_that_counts_otherwise_is_refuted(files, trainers) -> None:
    found = judge_step(files(trainers.SkippedCount()))
    assert not found.found.accepted and "counts 14 after 12" in found.words


def test_honest_step_has_no_element_to_open(good, workshop) -> None:
    assert worst_spot(workshop.materials, good) is None


@pytest.mark.parametrize(
    "path", [KERNEL, ("parameters", "layers", "1", "bias"), ("key",), ("step",)]
)
def test_no_element_of_an_honest_step_is_refuted(opened_honestly, path) -> None:
    for element in (0,) if path[0] != "parameters" else (0, 9):
        assert judge_step(opened_honestly(path, element)).found.accepted


def test_honest_rounding_is_within_and_a_thousandth_of_a_step_is_not(
    good, honest, workshop
) -> None:
    old = np.asarray(good.before["parameters"]["layers"]["0"]["kernel"])
    new = np.asarray(good.after["parameters"]["layers"]["0"]["kernel"])
    moved = new + np.float32(0.001) * (new - old)
    for change, within in ((new * np.float32(1 + 2.0**-25), True), (moved, False)):
        after = copy.deepcopy(good.after)
        after["parameters"]["layers"]["0"]["kernel"] = jnp.asarray(change)
        spot = worst_spot(workshop.materials, dataclasses.replace(good, after=after))
        assert (spot is None) is within


def test_start_that_init_does_not_give_is_refuted(cheat, honest, trainers, workshop) -> None:
    fault = trainers.OtherStart()
    run = cheat(fault)
    bench = trainers.FaultyBench(workshop.bench(None, trainers.MeshSizes(), microbatch=None), fault)
    first = bench.executor.initial_state(3)
    made = refute_start(run, workshop.materials, first, alg="blake3")
    found = judge_init(InitRefutation.from_bytes(made.to_bytes()))
    assert found.words.startswith("parameters/layers/0/kernel: element 35 of state 0 is")
    assert "0.25" in found.words
    own = workshop.bench(None, trainers.MeshSizes(), microbatch=None).executor.initial_state(3)
    assert refute_start(honest, workshop.materials, own, alg="blake3") is None


def variants(file: StepRefutation, other: StepRefutation, path_file: StepRefutation):
    """Yield files in which one thing is not what belongs there."""

    def change(**parts):
        return dataclasses.replace(file, **parts)

    opened, strange = file.openings, path_file.openings
    for side in ("before", "gradient", "after"):
        for source in (other.openings, strange):
            yield change(openings=dataclasses.replace(opened, **{side: getattr(source, side)}))
    swapped = dataclasses.replace(opened, before=opened.after, after=opened.before)
    yield change(openings=swapped)
    for side in ("before", "after"):
        tiles = getattr(opened, side)
        yield change(openings=dataclasses.replace(opened, **{side: tiles[:-1]}))
        yield change(openings=dataclasses.replace(opened, **{side: (*tiles, tiles[0])}))
    yield change(openings=dataclasses.replace(opened, gradient=()))
    yield change(before=None)
    yield change(before=other.before)
    yield change(before=dataclasses.replace(file.before, loss=(9.0).hex()))
    for name in ("signature", "artifact", "constants"):
        yield change(parts=dataclasses.replace(file.parts, **{name: b"{}"}))
    for name in ("rules", "config"):
        text = getattr(file.parts, name).replace(b"update", b"copied").replace(b"0x1", b"0x2", 1)
        yield change(parts=dataclasses.replace(file.parts, **{name: text}))
    yield change(path=("parameters", "layers", "1", "kernel"))
    yield change(path=("optimizer", *file.path[1:]))
    yield change(path=(0,))
    yield change(element=1 << 40)
    for name in ("attempt", "row", "genesis"):
        strange_part = getattr(other.signed, name)
        yield change(signed=dataclasses.replace(file.signed, **{name: strange_part}))
    contract = file.signed.contract
    loose = dataclasses.replace(contract.numerics, cap=(2.0).hex())
    yield change(
        signed=dataclasses.replace(
            file.signed, contract=dataclasses.replace(contract, numerics=loose)
        )
    )


def test_swapped_parts_are_refused_and_never_refute(
    files, opened_honestly, honest, trainers, workshop
) -> None:
    """Openings of other tensors, rows and runs; other programs, constants and rules."""
    bad = files(trainers.LargerRate(1.01))
    fine = opened_honestly(KERNEL, bad.element)
    bias = opened_honestly(("parameters", "layers", "0", "bias"))
    early = trainers.opened_step(workshop, honest, trainers.Fault(), 5)
    spot = Spot(KERNEL, bad.element)
    other = step_file_of(honest, workshop.materials, early, spot, alg="blake3")
    for file in (fine, bad):
        # Envelopes are those of the other run, openings those of step 5 and of another tensor.
        strange = dataclasses.replace(
            other, signed=(bad if file is fine else fine).signed, before=other.before
        )
        made = list(variants(file, strange, bias))
        assert len(made) > 25
        for number, changed in enumerate(made):
            with pytest.raises((AttestError, AnhError)):
                judge_step(StepRefutation.from_bytes(changed.to_bytes()))
                pytest.fail(f"variant {number} was judged")


def test_state_before_that_no_row_commits_refutes_nothing(good, honest, workshop) -> None:
    """A forged row may commit any state; the next row's `prev` is what names the true one."""
    parameters = jax.tree.map(lambda x: x * np.float32(1.1), good.before["parameters"])
    before = {**good.before, "parameters": parameters}
    root = tree_digest(before, step=good.previous.step).root.hex()
    forged = dataclasses.replace(good.previous, state_root=root)
    opened = dataclasses.replace(good, before=before, previous=forged)
    spot = Spot(KERNEL, 40)
    file = step_file_of(honest, workshop.materials, opened, spot, alg="blake3")
    with pytest.raises(RefusedError, match="is not the row that this one follows"):
        judge_step(file)


def test_program_that_the_contract_does_not_name_is_refused_by_its_id(
    opened_honestly, honest, workshop
) -> None:
    stored = workshop.materials.programs.stored
    file = opened_honestly(KERNEL)
    other = {"signature": stored["init"].signature.to_bytes(), "artifact": stored["init"].artifact}
    with pytest.raises(RefusedError, match="is not the contract's update"):
        judge_step(dataclasses.replace(file, parts=dataclasses.replace(file.parts, **other)))
    own = workshop.bench(None, MeshSizes(), microbatch=None).executor.initial_state(3)
    start = refute_start(honest, workshop.materials, {**own, "step": own["step"] + 1}, alg="blake3")
    update = {"signature": file.parts.signature, "artifact": file.parts.artifact}
    with pytest.raises(RefusedError, match="is not the contract's init"):
        judge_init(dataclasses.replace(start, **update))


def test_no_changed_byte_makes_an_honest_step_refuted(opened_honestly) -> None:
    data = opened_honestly(KERNEL, 40).to_bytes()
    draw = np.random.default_rng(1)
    refused = 0
    for place in draw.integers(0, len(data), 150):
        changed = bytearray(data)
        changed[place] ^= 1 << int(draw.integers(0, 7))
        try:
            assert judge_step(StepRefutation.from_bytes(bytes(changed))).found.accepted
        except (AttestError, AnhError):
            refused += 1
    # All but a digit of the element, which then is another honest one.
    assert refused >= 148


def test_start_of_another_run_or_tensor_is_refused(cheat, trainers, workshop, honest) -> None:
    own = workshop.bench(None, trainers.MeshSizes(), microbatch=None).executor.initial_state(3)
    other = {**own, "step": own["step"] + 1}
    made = refute_start(honest, workshop.materials, other, alg="blake3")
    with pytest.raises(RefusedError, match="does not lead to the state digest"):
        judge_init(made)
    for change in ({"artifact": b"x"}, {"signature": b"{}"}, {"element": 9}, {"opening": b"{}"}):
        with pytest.raises((AttestError, ProgramError)):
            judge_init(dataclasses.replace(made, **change))


def test_rules_that_are_no_table_are_refused(opened_honestly, monkeypatch) -> None:
    """Whoever writes the contract writes what its digests name: a list too."""
    file = opened_honestly(KERNEL)
    monkeypatch.setattr(step_refutation, "_check_parts", lambda unused: None)
    with pytest.raises(RefusedError, match="has no rule that a file can show"):
        judge_step(dataclasses.replace(file, parts=dataclasses.replace(file.parts, rules=b"[]")))


def test_update_program_that_is_not_its_optimizer_refutes_no_trainer(
    opened_honestly, monkeypatch
) -> None:
    """Whoever followed the contract has done nothing wrong; the contract's author has."""
    file = opened_honestly(KERNEL)
    other = Statistic(math.inf, "parameters/kernel")
    monkeypatch.setattr(UpdateStage, "unfit", lambda *unused: other)
    with pytest.raises(ProgramError, match="of another rule than its optimizer"):
        judge_step(file)


def test_row_that_not_all_workers_signed_is_no_claim_of_the_run(opened_honestly, honest) -> None:
    """Of two hosts one computes wrongly, and the run stops: his signature alone refutes nothing."""
    signed = opened_honestly(KERNEL).signed
    keys = [PrivateKey(bytes([n]) * 32) for n in (1, 2)]
    attempt = statement_of(signed.attempt, Attempt)
    both = dataclasses.replace(
        attempt, processes=2, worker_keys=tuple(key.public.hex() for key in keys)
    )
    told = sign(encode_statement(both), [honest.key("run")])
    row = Step(told.record_hash().hex(), statement_of(signed.row, Step).row)
    for signers, held in ((keys, True), (keys[:1], False), (keys[1:], False)):
        file = dataclasses.replace(signed, attempt=told, row=sign(encode_statement(row), signers))
        if held:
            assert verify_step(file).row == row.row
            continue
        with pytest.raises(RefusedError, match="exactly the attempt's workers"):
            verify_step(file)
