"""Whether two executors may be compared bit for bit: only what was stated counts, all of it."""

import dataclasses

import jax
import pytest

from anh_jax.environment import environment, execution_class
from anh_jax.stated_class import class_facts, joint_class, match_class, stated_class
from attest.statements import Attempt, Genesis, Mesh

MESH = {"data": 1, "fsdp": 1, "tensor": 1}


def genesis(stated: dict[str, str]) -> Genesis:
    return Genesis(
        state_root="1" * 64,
        contract="2" * 64,
        plan="3" * 64,
        run_key="4" * 64,
        trainer="lab",
        execution_class=stated,
        environment={},
        digest_policy="every 1",
        alg="blake3",
        init="exact",
        seed="fixed",
    )


def attempt(facts: dict[str, str], processes: int = 1) -> Attempt:
    return Attempt(
        resumed_from="5" * 64,
        run="5" * 64,
        number=1,
        step=0,
        worker_keys=tuple(str(number) * 64 for number in range(processes)),
        mesh=Mesh(1, 1, 1),
        processes=processes,
        environment={**environment(), "selfReplay": "equal", **facts},
        reason="start",
    )


@pytest.fixture
def own() -> dict[str, str]:
    return execution_class(MESH, processes=1)


def test_same_class_that_repeats_itself_is_comparable(own: dict[str, str]) -> None:
    assert match_class(attempt(class_facts(own, own)), genesis(own)).comparable


@pytest.mark.parametrize("name", ["threads", "isa", "flags", "jaxlibFiles", "driver", "mesh"])
def test_any_other_fact_makes_another_class(own: dict[str, str], name: str) -> None:
    other = {**own, name: "else"}
    told = attempt(class_facts(other, own))
    match = match_class(told, genesis(own))
    assert not match.comparable
    assert f"another execution class: {name} is" in match.obstacle
    # What a resumed attempt has otherwise is read back from genesis and its own environment.
    assert stated_class(told, genesis(own)) == other


def test_class_that_is_not_stated_equals_none(own: dict[str, str]) -> None:
    match = match_class(attempt({}), genesis(own))
    assert match.obstacle == "attempt 1 does not state its execution class"


def test_class_that_contradicts_its_digest_equals_none(own: dict[str, str]) -> None:
    facts = {**class_facts({**own, "threads": "9"}, own), "class.threads": own["threads"]}
    assert not match_class(attempt(facts), genesis(own)).comparable


def test_attempt_must_have_repeated_itself_and_run_this_jax(own: dict[str, str]) -> None:
    facts = class_facts(own, own)
    for change in ({"selfReplay": "different"}, {"jax": "0.0.1"}):
        assert not match_class(attempt({**facts, **change}), genesis(own)).comparable
    silent = attempt(facts)
    kept = {name: value for name, value in silent.environment.items() if name != "selfReplay"}
    silent = dataclasses.replace(silent, environment=kept)
    assert not match_class(silent, genesis(own)).comparable


def test_processes_must_be_as_many(own: dict[str, str]) -> None:
    match = match_class(attempt(class_facts(own, own), processes=2), genesis(own))
    assert match.obstacle == "attempt 1 ran in 2 processes"


def test_hosts_apart_have_no_single_hosts_class(own: dict[str, str]) -> None:
    joined = joint_class([own, {**own, "isa": "avx"}])
    assert joined["isa"] == " | ".join(sorted({own["isa"], "avx"}))
    assert joint_class([own, own]) == own
    assert not match_class(attempt(class_facts(joined, own)), genesis(own)).comparable


def test_thread_pool_counts_reservations_and_virtual_devices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Both change how XLA:CPU splits a sum, hence its bits.
    monkeypatch.setenv("NPROC", "77")
    assert execution_class(MESH, processes=1)["threads"] == "77"
    monkeypatch.setenv("NPROC", "1")
    expected = max(1, jax.local_device_count())
    assert execution_class(MESH, processes=1)["threads"] == str(expected)
