"""The noise of an audit follows from what was fixed before anybody could try it."""

import hashlib

import pytest

from attest.errors import RefusedError
from attest.spread_seed import spread_seed, step_seed

FINAL, ACME, GLOBEX = "11" * 32, "22" * 32, "33" * 32
NONCES = {ACME: "aa" * 32, GLOBEX: "bb" * 32}


def test_seed_is_the_hash_that_the_protocol_states() -> None:
    told = b"anh v1 spread seed\0" + bytes.fromhex(FINAL + ACME + "aa" * 32 + "bb" * 32)
    assert spread_seed(FINAL, ACME, NONCES) == int.from_bytes(
        hashlib.sha256(told).digest()[:8], "big"
    )
    step = b"anh v1 spread\0" + (5).to_bytes(8, "big") + (9).to_bytes(8, "big")
    assert step_seed(5, 9) == int.from_bytes(hashlib.sha256(step).digest()[:8], "big")


def test_seed_is_another_for_each_auditor_final_record_and_nonce() -> None:
    seeds = {
        spread_seed(FINAL, ACME, NONCES),
        spread_seed(FINAL, GLOBEX, NONCES),
        spread_seed("12" * 32, ACME, NONCES),
        spread_seed(FINAL, ACME, {ACME: "ab" * 32, GLOBEX: "bb" * 32}),
        spread_seed(FINAL, ACME, {ACME: "aa" * 32}),
        spread_seed(FINAL, ACME, {}),
    }
    assert len(seeds) == 6


def test_order_in_which_nonces_are_named_changes_nothing() -> None:
    turned = dict(reversed(NONCES.items()))
    assert spread_seed(FINAL, ACME, turned) == spread_seed(FINAL, ACME, NONCES)


def test_each_step_has_a_noise_of_its_own() -> None:
    assert len({step_seed(seed, step) for seed in (0, 1) for step in (1, 2, 3)}) == 6


@pytest.mark.parametrize(
    "parts", [("11" * 31, ACME, {}), (FINAL, "22" * 33, {}), (FINAL, ACME, {ACME: "aa" * 31})]
)
def test_part_of_another_length_is_refused(parts) -> None:
    # Concatenated parts of free length could mean two things.
    with pytest.raises(RefusedError, match="a part has"):
        spread_seed(*parts)
