"""On which nonces a sample rests: intents before the final, revealed after it, none by choice."""

import dataclasses
import json
from pathlib import Path

from attest.envelope import sign
from attest.log.sequencer import LocalLog
from attest.policy import load_policy
from attest.statements import Audit, Intent, Nonce, Source, decode_statement, encode_statement
from launch.cli import run
from launch.key_home import find_key


def test_intent_comes_before_the_final_record(fresh: Path, ask, logged, make_keys) -> None:
    make_keys("alice")
    code, answer = ask("audit", fresh, "--intend", "--key", "alice", "--operator", "acme")
    assert code == 2 and "an intent comes before" in answer["error"]
    assert not any(isinstance(said, Intent) for said in logged(fresh))


def test_second_intent_of_a_key_is_the_first(going: Path, ask, logged, make_keys) -> None:
    make_keys("alice")
    words = ("audit", going, "--intend", "--key", "alice", "--operator", "acme")
    first, again = ask(*words)[1], ask(*words)[1]
    assert (first["intent"], again["nonce"]) == (again["intent"], None)
    assert sum(isinstance(said, Intent) for said in logged(going)) == 1


def test_lost_nonce_is_named_and_no_other_sample_is_drawn(
    going: Path, ask, logged, make_keys
) -> None:
    make_keys("alice")
    who = ("--key", "alice", "--operator", "acme")
    nonce = Path(ask("audit", going, "--intend", *who)[1]["nonce"])
    run(["resume", str(going)])
    nonce.rename(nonce.with_suffix(".away"))
    code, answer = ask("audit", going, *who)
    assert code == 2 and "does not hold the nonce of your intent" in answer["error"]
    nonce.write_text("0" * 64)
    assert ask("audit", going, *who)[0] == 2
    assert not any(isinstance(said, Audit) for said in logged(going))


def test_sources_of_a_policy_wait_for_each_other(
    going: Path, ask, logged, make_keys, naming
) -> None:
    make_keys("alice", "bob")
    for name in ("alice", "bob"):
        who = ("--key", name, "--operator", f"{name}.example")
        assert ask("audit", going, "--intend", *who)[0] == 0
    run(["resume", str(going)])
    mine = naming(going, "--auditor", "alice=alice.example",
                  "--auditor", "bob=bob.example")  # fmt: skip
    keys = [entry.public.hex() for entry in load_policy(mine).keys if entry.role.value == "auditor"]
    mine.write_text(mine.read_text() + f"\n[sample]\nsources = {json.dumps(keys)}\n")
    code, answer = ask("audit", going, "--key", "alice", "--policy", mine)
    assert code == 2 and "bob.example, who has not revealed a nonce yet" in answer["error"]
    assert sum(isinstance(said, Nonce) for said in logged(going)) == 1
    bob = ask("audit", going, "--key", "bob", "--policy", mine, "--samples", "5")[1]
    alice = ask("audit", going, "--key", "alice", "--policy", mine, "--samples", "5")[1]
    assert alice["sources"] == bob["sources"] == ["alice.example", "bob.example"]
    assert alice["steps"] == bob["steps"]


def test_source_that_announced_nothing_is_named(fresh: Path, ask, make_keys, naming) -> None:
    make_keys("alice", "bob")
    mine = naming(fresh, "--auditor", "alice=a.example",
                  "--auditor", "bob=b.example")  # fmt: skip
    bob = next(e for e in load_policy(mine).keys if e.operator == "b.example").public.hex()
    mine.write_text(mine.read_text() + f'\n[sample]\nsources = ["{bob}"]\n')
    code, answer = ask("audit", fresh, "--key", "alice", "--policy", mine)
    assert code == 2 and "b.example, who announced no audit before the final" in answer["error"]


def test_false_nonce_in_somebody_elses_receipt_reveals_nothing(
    going: Path, ask, make_keys, naming
) -> None:
    make_keys("alice", "bob", "mallory")
    intents: dict[str, str] = {}
    for name in ("alice", "bob"):
        who = ("--key", name, "--operator", f"{name}.example")
        intents[name] = ask("audit", going, "--intend", *who)[1]["intent"]
    run(["resume", str(going)])
    # A receipt may name any nonce: the log executes nothing, so it cannot know better.
    forged = ask("audit", going, "--key", "mallory", "--operator", "evil", "--steps", "3")[1]
    mallory = find_key("mallory")
    with LocalLog.open(going / "log") as log:
        said = decode_statement(log.entry(forged["indices"][0]).payload)
        source = Source(intents["bob"], find_key("bob").keyid, "0" * 64)
        lie = dataclasses.replace(said, sample="intents", sources=(source,))
        log.append([sign(encode_statement(lie), [mallory])])
    mine = naming(going, "--auditor", "alice=alice.example", "--auditor", "bob=bob.example")
    keys = [e.public.hex() for e in load_policy(mine).keys if e.role.value == "auditor"]
    mine.write_text(mine.read_text() + f"\n[sample]\nsources = {json.dumps(keys)}\n")
    code, answer = ask("audit", going, "--key", "alice", "--policy", mine)
    assert code == 2 and "bob.example, who has not revealed a nonce yet" in answer["error"]
