"""A log that lies, witnesses, and readers: an honest quorum never shows two histories."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from attest import merkle
from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.errors import AttestError, EquivocationError, InputError
from attest.head import check_quorum, open_head
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, Role, VerifierKey
from attest.note import Note, NoteSignature
from attest.trust import KeyEntry, LogEntry, Policy, WitnessEntry
from attest.witness import Witness

ORIGIN = "log.example/runs"
LOG_KEY = PrivateKey(b"\x05" * 32)
LOG = VerifierKey(ORIGIN, ALG_ED25519, LOG_KEY.public)
NOW = 1_790_000_000
# Three witnesses, of whom one signs whatever it is shown: two signatures hold an honest one.
HONEST = ("a", "b")
LIAR = "liar"
KEYS = {name: PrivateKey(name.encode().ljust(32, b"\x07")) for name in (*HONEST, LIAR)}
VKEYS = {
    name: VerifierKey(f"{name}.example", ALG_COSIGNATURE, key.public) for name, key in KEYS.items()
}
MOST = 24


def policy(quorum: int) -> Policy:
    return Policy(
        log=LogEntry(ORIGIN, LOG, "logco"),
        witnesses=tuple(WitnessEntry(VKEYS[name], name) for name in VKEYS),
        quorum=quorum,
        keys=(KeyEntry(Role.AUTHOR, PrivateKey(b"\x09" * 32).public, "author"),),
    )


class LyingLog(RuleBasedStateMachine):
    """Grow, fork and restore histories, ask witnesses, and show readers what they signed.

    `QUORUM` is what readers demand of three witnesses; `BROKEN` leaves a witness's check out, to
    see that the invariant would fail.
    """

    QUORUM = 2
    BROKEN = False

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="anh-witnesses-")
        self.histories: list[list[bytes]] = [[]]
        self.lines: dict[tuple[int, bytes], dict[str, NoteSignature]] = {}
        self.heads: set[tuple[int, bytes]] = set()
        self.prefixes: dict[tuple[int, bytes], list[bytes]] = {}
        self.time = NOW
        self.serial = 0
        self.witnesses: dict[str, Witness] = {}

    def teardown(self) -> None:
        self._folder.cleanup()

    @initialize()
    def begin(self) -> None:
        for name in HONEST:
            self.witnesses[name] = Witness.create(
                self._path(name), KEYS[name], VKEYS[name].name, lambda: self.time
            )
            self.witnesses[name].register(LOG)

    @rule(which=st.integers(0, 99), count=st.integers(1, 5))
    def append(self, which: int, count: int) -> None:
        history = self.histories[which % len(self.histories)]
        for _ in range(min(count, MOST - len(history))):
            self.serial += 1
            history.append(merkle.leaf_hash(b"%d" % self.serial))

    @rule(which=st.integers(0, 99), keep=st.integers(0, MOST))
    def fork_or_restore_a_backup(self, which: int, keep: int) -> None:
        """Go on from an older size: what a restored backup does by accident, a liar on purpose."""
        if len(self.histories) < 4:
            self.histories.append(self.histories[which % len(self.histories)][:keep])

    @rule(which=st.integers(0, 99), name=st.sampled_from(HONEST), cut=st.integers(0, 3))
    def ask_honest(self, which: int, name: str, cut: int) -> None:
        history = self.histories[which % len(self.histories)]
        size = max(0, len(history) - cut)
        self._ask(name, history[:size])

    @rule(
        which=st.integers(0, 99),
        name=st.sampled_from(HONEST),
        claimed=st.integers(0, MOST),
        path=st.lists(st.binary(min_size=32, max_size=32), max_size=3),
    )
    def ask_with_a_made_up_proof(
        self, which: int, name: str, claimed: int, path: list[bytes]
    ) -> None:
        self._ask(name, self.histories[which % len(self.histories)], claimed, path)

    @rule(which=st.integers(0, 99), cut=st.integers(0, 3))
    def ask_liar(self, which: int, cut: int) -> None:
        from attest.cosignature import cosign

        history = self.histories[which % len(self.histories)]
        history = history[: max(0, len(history) - cut)]
        note = self._note(history)
        line = cosign(note.text, VKEYS[LIAR].name, KEYS[LIAR], self.time)
        self._keep(history, LIAR, line)

    @rule(name=st.sampled_from(HONEST))
    def witness_restarts(self, name: str) -> None:
        self.witnesses[name] = Witness(self._path(name), KEYS[name], lambda: self.time)

    @rule(seconds=st.integers(-30, 1000))
    def time_passes(self, seconds: int) -> None:
        self.time += seconds

    @rule(data=st.data())
    def reader_reads(self, data: st.DataObject) -> None:
        """Show a reader a head with any of the lines that the log has got for it."""
        if not self.lines:
            return
        head = data.draw(st.sampled_from(sorted(self.lines)))
        names = data.draw(st.sets(st.sampled_from(sorted(self.lines[head]))))
        self.show(head, names)

    def show(self, head: tuple[int, bytes], names: set[str]) -> None:
        """Show a head with these witnesses' lines to a reader who knows nothing before."""
        note = self._note(self.prefixes[head])
        for name in sorted(names):
            note = note.signed_also(self.lines[head][name])
        try:
            opened = open_head(note.to_bytes(), policy(self.QUORUM))
            check_quorum(opened, policy(self.QUORUM))
        except AttestError:
            assert len(names) < self.QUORUM
            return
        self.heads.add(head)

    @invariant()
    def accepted_heads_are_one_history(self) -> None:
        told = sorted((self.prefixes[head] for head in self.heads), key=len)
        for shorter, longer in zip(told, told[1:], strict=False):
            assert longer[: len(shorter)] == shorter, "two inconsistent heads were accepted"

    def _ask(
        self,
        name: str,
        history: list[bytes],
        claimed: int | None = None,
        path: list[bytes] | None = None,
    ) -> None:
        old = self.witnesses[name].size(ORIGIN) if claimed is None else claimed
        if path is None:
            known = 0 < old <= len(history)
            path = merkle.consistency_path(old, len(history), history) if known else []
        try:
            line = self._cosigned(name, old, path, history)
        except InputError:
            raise  # an honest witness's memory is never lost here
        except (AttestError, EquivocationError):
            return
        self._keep(history, name, line)

    def _cosigned(
        self, name: str, old: int, path: list[bytes], history: list[bytes]
    ) -> NoteSignature:
        note = self._note(history)
        if self.BROKEN:
            from attest.cosignature import cosign

            return cosign(note.text, VKEYS[name].name, KEYS[name], self.time)
        return self.witnesses[name].cosign(old, path, note.to_bytes())

    def _keep(self, history: list[bytes], name: str, line: NoteSignature) -> None:
        head = (len(history), merkle.tree_root(history))
        self.prefixes[head] = list(history)
        self.lines.setdefault(head, {})[name] = line

    def _note(self, history: list[bytes]) -> Note:
        return sign_checkpoint(Checkpoint(ORIGIN, len(history), merkle.tree_root(history)), LOG_KEY)

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / name


def explored(machine: type[Any], examples: int, steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_reader_with_an_honest_quorum_accepts_two_histories() -> None:
    explored(LyingLog, 20, 30)


@pytest.mark.full
def test_no_reader_with_an_honest_quorum_accepts_two_histories_at_length() -> None:
    explored(LyingLog, 1000, 60)


@pytest.mark.parametrize(
    ("changes", "names"),
    [({"QUORUM": 1}, {LIAR}), ({"BROKEN": True}, {"a", LIAR}), ({}, {"a", LIAR})],
    ids=["quorum 1", "no check", "honest"],
)
def test_two_histories_are_accepted_only_without_an_honest_quorum(
    changes: dict[str, Any], names: set[str]
) -> None:
    machine: Any = type("Changed", (LyingLog,), changes)()
    machine.begin()
    machine.append(0, 3)
    machine.fork_or_restore_a_backup(0, 1)
    machine.append(1, 4)
    for which in (0, 1):
        machine.ask_honest(which, "a", 0)
        machine.ask_liar(which, 0)
    for head, lines in machine.lines.items():
        machine.show(head, names & lines.keys())
    if changes:
        with pytest.raises(AssertionError, match="two inconsistent heads"):
            machine.accepted_heads_are_one_history()
    else:
        assert len(machine.heads) == 1
        machine.accepted_heads_are_one_history()
    machine.teardown()
