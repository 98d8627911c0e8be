"""C2SP tlog-policy: groups mean what the specification says; all else is refused by its line."""

from itertools import combinations

import pytest

from attest.errors import InputError
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, VerifierKey
from attest.tlog_policy import parse_tlog_policy
from attest.witness_groups import WitnessGroup, check_groups, fewest, unmet_group


def vkey(name: str, algorithm: int = ALG_COSIGNATURE) -> str:
    public = PrivateKey(name.encode().ljust(32, b".")).public
    return VerifierKey(name, algorithm, public).to_text()


LOG = f"log {vkey('log.example', ALG_ED25519)} https://log.example/"
WITNESSES = [f"witness {name} {vkey(name)}" for name in ("X1", "X2", "X3", "Y1", "Y2", "Y3")]
# The example of the specification.
TWO_LEVELS = [
    "group X-witnesses 2 X1 X2 X3",
    "group Y-witnesses any Y1 Y2 Y3",
    "group X-and-Y all X-witnesses Y-witnesses",
    "quorum X-and-Y",
]


def text(*lines: str) -> bytes:
    return "\n".join([LOG, *WITNESSES, *lines, ""]).encode()


def test_the_specifications_example_is_met_by_exactly_the_right_sets() -> None:
    policy = parse_tlog_policy(text(*TWO_LEVELS))
    names = [witness.operator for witness in policy.witnesses]
    assert names == ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    for count in range(7):
        for chosen in combinations(names, count):
            x, y = (sum(name.startswith(side) for name in chosen) for side in "XY")
            met = unmet_group(policy.groups, chosen) is None
            assert met == (x >= 2 and y >= 1), chosen
    assert fewest(policy.groups) == 3


def test_a_quorum_of_one_witness_asks_for_that_one() -> None:
    policy = parse_tlog_policy(text("quorum X2"))
    assert unmet_group(policy.groups, ["X1", "Y1"]) is not None
    assert unmet_group(policy.groups, ["X2"]) is None


def test_a_group_that_the_quorum_does_not_rest_on_asks_for_nothing() -> None:
    policy = parse_tlog_policy(text("group spare all Y1 Y2", "quorum X1"))
    assert unmet_group(policy.groups, ["X1"]) is None
    assert len(policy.witnesses) == 6, "its witnesses' lines are known all the same"


def test_blanks_tabs_and_comments_are_passed_over() -> None:
    lines = [" # a comment", "", "\tgroup  g \t any X1\tX2 ", "  quorum g"]
    assert parse_tlog_policy(text(*lines)).groups == (WitnessGroup("g", 1, ("X1", "X2")),)


BROKEN = {
    "no quorum": (["group g any X1"], "no quorum line"),
    "quorum none": (["quorum none"], "quorum none"),
    "two quorums": (["quorum X1", "quorum X2"], "second quorum"),
    "unknown quorum": (["quorum Z"], "defined on no line before"),
    "quorum before its group": (["quorum g", "group g any X1"], "defined on no line before"),
    "unknown member": (["group g any Z", "quorum g"], "no witness operator"),
    "none as a member": (["group g any none", "quorum g"], "no witness operator"),
    "itself as a member": (["group g any g", "quorum g"], "no witness operator"),
    "member twice": (["group g 2 X1 X1", "quorum g"], "member twice"),
    "member of two": (["group g any X1", "group h any X1", "quorum h"], "member twice"),
    "threshold 0": (["group g 0 X1", "quorum g"], "threshold"),
    "threshold 01": (["group g 01 X1", "quorum g"], "threshold"),
    "threshold above n": (["group g 3 X1 X2", "quorum g"], "asks for 3 of 2"),
    "no member": (["group g any", "quorum g"], "not a line"),
    "name taken": (["group X1 any X2", "quorum X2"], "names two things"),
    "name none": (["group none any X2", "quorum X2"], "is taken"),
    "key twice": ([f"witness X9 {vkey('X1')}", "quorum X1"], "there already"),
    "log key as witness": ([f"witness L {vkey('L', ALG_ED25519)}", "quorum X1"], "0x01"),
    "unknown word": (["mirror m", "quorum X1"], "not a line"),
    "control character": (["quorum X1\r"], "control"),
    "name beyond ASCII": ([f"witness \N{KELVIN SIGN} {vkey('K')}", "quorum X1"], "ASCII"),
}


@pytest.mark.parametrize(("lines", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_what_the_specification_does_not_allow_is_refused(lines: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_tlog_policy(text(*lines))


def test_groups_of_a_policy_are_checked_as_well() -> None:
    for needed, members, words in ((0, ("a",), "asks for 0"), (1, ("z",), "no witness operator")):
        with pytest.raises(InputError, match=words):
            check_groups([WitnessGroup("g", needed, members)], ["a", "b"])


def test_32_logs_witnesses_and_groups_are_read() -> None:
    lines = [f"log {vkey(f'l{n}', ALG_ED25519)}" for n in range(32)]
    lines += [f"witness w{n} {vkey(f'w{n}')}" for n in range(32)]
    lines += [f"group g{n} any w{n}" for n in range(31)]
    lines += [f"group all 16 {' '.join(f'g{n}' for n in range(31))}", "quorum all"]
    policy = parse_tlog_policy("\n".join(lines).encode())
    assert len(policy.logs) == 32 and len(policy.groups) == 32 and fewest(policy.groups) == 16
