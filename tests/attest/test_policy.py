"""policy.toml: one spelling of trust; what is wrong with a file is said in one line."""

from dataclasses import replace
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.errors import InputError
from attest.keys import ALG_COSIGNATURE, PrivateKey, Role, VerifierKey
from attest.level import Level
from attest.policy import load_policy, parse_policy, policy_text, self_policy
from attest.trust import KeyEntry, NumericsDemand, PropertyDemand, Requirement, WitnessEntry


def test_policy_comes_back_from_its_text(tale: ModuleType) -> None:
    full = tale.policy(
        contracts=("a" * 64,),
        runs=("b" * 64, "c" * 64),
        sources=(tale.key("acme").keyid, tale.key("globex").keyid),
        numerics=NumericsDemand(
            ("f32", "bf16"), 459, 0.015, (("c", 4.0), ("a2Cold", 0.1)), ("tf32",)
        ),
        max_status_age=3600,
        require=Requirement(Level.REPRODUCED, (PropertyDemand("accuracy", 2),)),
    )
    keys = (replace(full.keys[0], from_index=5, to_index=9), *full.keys[1:])
    full = replace(full, keys=keys)
    assert parse_policy(policy_text(full)) == full


def test_defaults_come_back_from_their_text(tale: ModuleType) -> None:
    assert parse_policy(policy_text(tale.policy())) == tale.policy()
    assert parse_policy(policy_text(tale.own_policy())) == tale.own_policy()


@given(
    operator=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1),
    fraction=st.floats(min_value=1e-12, max_value=1.0),
    cap=st.floats(min_value=0.0, max_value=1e12),
)
@settings(max_examples=60, deadline=None)
def test_any_name_and_number_survives_the_text(
    tale: ModuleType, operator: str, fraction: float, cap: float
) -> None:
    numerics = NumericsDemand(bad_fraction=fraction, caps=(("cap", cap),))
    keys = (replace(tale.policy().keys[0], operator=operator), *tale.policy().keys[1:])
    policy = tale.policy(numerics=numerics, keys=keys)
    assert parse_policy(policy_text(policy)) == policy


def test_self_policy_has_one_operator_and_requires_logged(tale: ModuleType) -> None:
    policy = self_policy(
        operator="lab",
        origin=tale.ORIGIN,
        log=tale.vkey("log"),
        witness=tale.vkey("wit-a", ALG_COSIGNATURE),
        keys={Role.AUTHOR: tale.key("owner").public, Role.RUN: tale.key("lab").public},
    )
    assert policy.operators() == {"lab"}
    assert policy.require == Requirement(Level.LOGGED)
    assert parse_policy(policy_text(policy)) == policy


def test_key_may_be_written_as_vkey(tale: ModuleType) -> None:
    public = tale.key("owner").public
    text = policy_text(tale.policy()).replace(
        public.hex(), VerifierKey("owner.example", 1, public).to_text()
    )
    assert parse_policy(text) == tale.policy()


def test_key_range_includes_its_start_and_excludes_its_end() -> None:
    entry = KeyEntry(Role.AUDITOR, bytes(32), "acme", from_index=5, to_index=9)
    assert [i for i in range(12) if entry.covers(i)] == [5, 6, 7, 8]
    assert KeyEntry(Role.AUDITOR, bytes(32), "acme", from_index=5).covers(10**9)


BROKEN = {
    "unknown top key": ("quorum = 2", "qorum = 2", "qorum", "did you mean 'quorum'"),
    "unknown log key": ("origin =", "orgin =", "log.orgin", "did you mean 'origin'"),
    "unknown key key": ("role = ", "rolle = ", "keys.rolle", "did you mean 'role'"),
    "unknown role": ('"auditor"', '"auditer"', "keys.role", "did you mean 'auditor'"),
    "role of another table": ('"auditor"', '"witness"', "keys.role", "known are"),
    "unknown level": ('"sampled"', '"sampeld"', "require.level", "did you mean 'sampled'"),
    "unknown cap": ("min_k", "caps = {cc = 1}\nmin_k", "numerics.caps.cc", "did you mean 'c'"),
    "another version": ("version = 1", "version = 2", "version", "version 1"),
    "no version": ("version = 1", "", "version", "missing"),
    "quorum zero": ("quorum = 2", "quorum = 0", "quorum", "between 1"),
    "quorum of too many": ("quorum = 2", "quorum = 3", "quorum", "the 2 witness operators"),
    "quorum text": ("quorum = 2", 'quorum = "none"', "quorum", "integer"),
    "quorum true": ("quorum = 2", "quorum = true", "quorum", "integer"),
    "negative index": ("role =", "from_index = -1\nrole =", "keys.from_index", "integer"),
    "empty range": ("role =", "from_index = 4\nto_index = 4\nrole =", "keys.to_index", "empty"),
    "range that ends at zero": ("role =", "to_index = 0\nrole =", "keys.to_index", "empty"),
    "fraction zero": ("bad_fraction = 0.01", "bad_fraction = 0", "bad_fraction", "above 0"),
    "fraction above one": ("bad_fraction = 0.01", "bad_fraction = 1.5", "bad_fraction", "most 1"),
    "fraction nan": ("bad_fraction = 0.01", "bad_fraction = nan", "bad_fraction", "finite"),
    "fraction infinite": ("bad_fraction = 0.01", "bad_fraction = inf", "bad_fraction", "finite"),
    "fraction text": ("bad_fraction = 0.01", 'bad_fraction = "1"', "bad_fraction", "finite"),
    "k zero": ("min_k = 10", "min_k = 0", "numerics.min_k", "at least 1"),
    "age zero": ("max_status_age = 604800", "max_status_age = 0", "max_status_age", "at least 1"),
    "classes no list": ('classes = ["f32"]', 'classes = "f32"', "numerics.classes", "list"),
    "classes twice": ('classes = ["f32"]', 'classes = ["f32", "f32"]', "classes", "twice"),
    "empty operator": ('operator = "acme"', 'operator = ""', "keys.operator", "non-empty"),
    "control in operator": ('operator = "acme"', 'operator = "a\\u001b"', "keys.operator", "ASCII"),
    "operator beyond ASCII": ('operator = "acme"', 'operator = "acmé"', "keys.operator", "ASCII"),
    "property of too many": ("operators = 1", "operators = 4", "operators", "3 auditor operators"),
    "not TOML": ("[log]", "[log", "not TOML", ""),
    "log no table": ("[log]", "log = 3\n[other]", "log", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_wrong_policy_is_refused_in_one_line_that_names_the_key(
    tale: ModuleType, name: str
) -> None:
    old, new, key, hint = BROKEN[name]
    text = policy_text(tale.policy())
    assert old in text
    text = text.replace(old, new, 1)
    with pytest.raises(InputError) as caught:
        parse_policy(text)
    message = str(caught.value)
    assert key in message
    assert hint in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_log_and_witness_keys_are_of_their_own_algorithms(tale: ModuleType) -> None:
    text = policy_text(tale.policy())
    log, witness = tale.vkey("log"), tale.vkey("wit-a", ALG_COSIGNATURE)
    as_witness = replace(log, algorithm=ALG_COSIGNATURE).to_text()
    with pytest.raises(InputError, match=r"log\.vkey.*0x01"):
        parse_policy(text.replace(log.to_text(), as_witness))
    with pytest.raises(InputError, match=r"witnesses\.vkey.*0x04"):
        parse_policy(text.replace(witness.to_text(), tale.vkey("wit-a").to_text()))


def test_key_named_twice_or_in_two_roles_is_refused(tale: ModuleType) -> None:
    base = tale.policy()
    acme = base.find(tale.key("acme").keyid, Role.AUDITOR)
    for other in (acme, replace(acme, operator="globex"), replace(acme, role=Role.MONITOR)):
        with pytest.raises(InputError, match="one key, one role"):
            replace(base, keys=(*base.keys, other))
    witness = KeyEntry(Role.AUDITOR, tale.key("wit-a").public, "wit-a")
    with pytest.raises(InputError, match="one key, one role"):
        replace(base, keys=(*base.keys, witness))


def test_two_witness_keys_of_one_operator_are_one_voice(tale: ModuleType) -> None:
    base = tale.policy()
    twin = WitnessEntry(tale.vkey("twin", ALG_COSIGNATURE), "wit-a")
    with pytest.raises(InputError, match="quorum: 3 is not between 1 and the 2"):
        replace(base, witnesses=(*base.witnesses, twin), quorum=3)


def test_policy_without_an_author_is_refused(tale: ModuleType) -> None:
    with pytest.raises(InputError, match="author"):
        tale.policy(without=("owner",))


def test_sample_source_must_be_a_named_auditor(tale: ModuleType) -> None:
    stranger = PrivateKey(bytes(32)).public.hex()
    text = policy_text(tale.policy()).replace(
        "[numerics]", f'[sample]\nsources = ["{stranger}"]\n\n[numerics]'
    )
    with pytest.raises(InputError, match=r"sample\.sources"):
        parse_policy(text)
    with pytest.raises(InputError, match=r"sample\.sources"):
        tale.policy(sources=(tale.key("watch").keyid,))


def test_origin_must_be_the_name_of_the_log_key(tale: ModuleType) -> None:
    text = policy_text(tale.policy()).replace(f'origin = "{tale.ORIGIN}"', 'origin = "other"')
    with pytest.raises(InputError, match=r"log\.origin"):
        parse_policy(text)


@pytest.mark.parametrize(
    "public", ["00" * 32, "01" + "00" * 31, "ab" * 31, "AB" * 32, "zz" * 32, "a+b+c"]
)
def test_key_that_is_no_good_point_is_refused(tale: ModuleType, public: str) -> None:
    text = policy_text(tale.policy()).replace(tale.key("acme").public.hex(), public)
    with pytest.raises(InputError, match=r"keys\.public"):
        parse_policy(text)


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_gives_a_policy_or_one_line(tale: ModuleType, text: str) -> None:
    for whole in (text, policy_text(tale.policy()) + text, "[" * 3000 + text):
        try:
            parse_policy(whole)
        except InputError as error:
            assert "\n" not in str(error)


def test_policy_file_is_named_in_its_errors(tale: ModuleType, tmp_path) -> None:
    path = tmp_path / "mine.toml"
    with pytest.raises(InputError, match="mine.toml"):
        load_policy(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"mine\.toml: not UTF-8"):
        load_policy(path)
    path.write_text("x = 1")
    with pytest.raises(InputError, match=r"mine\.toml: x: unknown key"):
        load_policy(path)
    path.write_text(policy_text(tale.policy()))
    assert load_policy(path) == tale.policy()
