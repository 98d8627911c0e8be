"""Attacks on the draw: choosing what is audited, or cheating where nobody looks."""

import dataclasses
import hashlib
import statistics
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from anh_jax import attested_run
from anh_jax.redteam.attack import Attack, Outcome, Trial, bounded
from anh_jax.redteam.other_rule import RateOnePercent
from anh_jax.redteam.trainer import Trainer, trial_of
from anh_jax.run_directory import RunDirectory
from attest.envelope import Envelope, sign
from attest.keys import PrivateKey, keyid
from attest.sample import sample_steps, single_escape
from attest.statements import Final, decode_statement, encode_statement
from launch.auditing import Audited, Wanted, audit
from launch.auditor_name import Asked
from launch.redteam.place import RecordPlace
from launch.redteam.records import RecordAttack

_BAD = 5
_FINALS = 64
# Nonces that nobody committed to: how often a bad step escapes is counted over these besides.
_IMAGINED = 256


def _finals(run: RunDirectory) -> Iterator[Envelope]:
    """Yield final records of one run, which differ in bytes that are the trainer's to choose."""
    told = decode_statement(run.statement("final").payload)
    assert isinstance(told, Final)
    for number in range(_FINALS):
        final = dataclasses.replace(told, metrics={**told.metrics, "n": number})
        yield sign(encode_statement(final), [run.key("run")])


def _drawn(run: RunDirectory, final: Envelope, nonce: bytes | None, *, steps: int) -> set[int]:
    """Return the quarter of the steps that a nonce draws; None for a sample without any."""
    identity = bytes.fromhex(attested_run.run_id(run))
    nonces = {} if nonce is None else {keyid(b"\0" * 32): nonce}
    return set(sample_steps(identity, final.record_hash(), nonces, steps, steps // 4))


def _nonce(number: int) -> bytes:
    return hashlib.sha256(f"nonce {number}".encode()).digest()


class _OneBadStep(Attack[RecordPlace]):
    """A run with one bad step, and auditors who each draw a sample of their own.

    A trial is one audit: announced before the final record, drawn by its own nonce, re-executed,
    signed and logged by the real command. `draws` audits are made of each run.
    """

    family = "sample"
    draws: ClassVar[int] = 8

    def carry_out(self, place: RecordPlace, *, rounds: int) -> Outcome:
        """Train, close and audit a run for each round; count over imagined nonces besides."""
        steps = place.bench.steps
        trials: list[Trial] = []
        escaped: list[bool] = []
        damage: dict[str, float] = {}
        for turn in range(rounds):
            bad, auditors = self.bad_step(place, turn), place.new_auditors(self.draws)
            run = place.unproven(RateOnePercent.trainer, frozenset({bad}), auditors)
            damage.update(self.closed(run, bad, steps))
            place.prove(run)
            for asked in auditors:
                done = place.audit(run, samples=steps // 4, asked=asked)
                trials.append(_of_audit(done, bad))
            final = run.statement("final")
            for number in range(1, 1 + _IMAGINED):
                sample = _drawn(run, final, _nonce(1000 * (turn + 1) + number), steps=steps)
                escaped.append(bad not in sample)
        return Outcome(tuple(trials), {
            "escapes": sum(not t.detected for t in trials) / len(trials),
            f"escapes of {len(escaped)} imagined draws": sum(escaped) / len(escaped),
            "escapes by chance": single_escape(steps, steps // 4),
            **damage,
        })  # fmt: skip

    @abstractmethod
    def bad_step(self, place: RecordPlace, turn: int) -> int:
        """Return the step to cheat on."""

    def closed(self, run: RunDirectory, bad: int, steps: int) -> dict[str, float]:
        """Choose the final record before it is logged; return by name what was found out."""
        return {}


def _of_audit(done: Audited, bad: int) -> Trial:
    for result in done.findings.results:
        if result.step == bad:
            return dataclasses.replace(trial_of(result), words=f"drawn: {result.words}")
    return Trial(False, None, f"step {bad} is not among {len(done.sample.steps)} audited steps")


class SampleGrinding(_OneBadStep):
    """Signs final records until the sample leaves its bad step out, without the nonce."""

    name = "sample-grinding"
    what = "64 final records, grown from free bytes, are tried; the auditors' nonces are not known."
    expected = bounded("one bad step escapes a quarter's sample with 75 %, ground or not")

    def bad_step(self, place: RecordPlace, turn: int) -> int:
        """Cheat on the same step whatever happens."""
        return _BAD

    def closed(self, run: RunDirectory, bad: int, steps: int) -> dict[str, float]:
        """Sign the final record that a guessed nonce favours; count what other bytes change.

        Keys that sign besides and the order in a log are free as well, and change no sample.
        """
        tried = list(_finals(run))
        samples = [_drawn(run, final, _nonce(0), steps=steps) for final in tried]
        chosen = next(n for n, sample in enumerate(samples) if bad not in sample)
        final = tried[chosen]
        signed = [sign(final.payload, [run.key("run"), PrivateKey.generate()]) for _ in range(8)]
        others = [_drawn(run, other, _nonce(0), steps=steps) for other in (final, *signed)]
        run.statement_path("final").unlink()  # the signer would refuse; its owner need not ask
        run.write_statement("final", final)
        return {
            "samples by 64 metrics": len({frozenset(sample) for sample in samples}),
            "samples by 9 signatures": len({frozenset(sample) for sample in others}),
        }


class SelfSampleGrinding(RecordAttack):
    """Grinds a sample that rests on no nonce, and shows the clean audit."""

    name, family = "self-sample-grinding", "sample"
    what = "Nobody announced an audit, so the trainer grinds a clean sample of its own."

    def attack(self, place: RecordPlace) -> Trial:
        """Grind, which always works, and show the reader an audit by the trainer itself."""
        run, steps = place.honest(), place.bench.steps
        drawn = (_drawn(run, final, None, steps=steps) for final in _finals(run))
        ground = any(_BAD not in sample for sample in drawn)
        with place.home():
            audit(run.root, Asked(), Wanted(samples=steps // 4))
        place.watch(run)
        reading = place.read(run, place.prove(run))
        words = f"{'ground' if ground else 'not ground'}; {reading.text}"
        return Trial(not reading.accepted, None, words)


class UnsampledCheat(_OneBadStep):
    """Cheats only on the step that it predicts will not be sampled."""

    name = "unsampled-cheat"
    what = "One step is cheated, chosen by a guess of the sample; the real samples are drawn later."
    expected = bounded("the bad step escapes k of T samples with probability 1 - k/T")

    def bad_step(self, place: RecordPlace, turn: int) -> int:
        """Predict by an honest run's records and a guessed nonce, and stay outside."""
        run, steps = place.bench.honest(), place.bench.steps
        guess = _drawn(run, run.statement("final"), _nonce(turn), steps=steps)
        return min(set(range(1, steps)) - guess)


class SeedGrinding(Attack[RecordPlace]):
    """Trains under many seeds and shows the best."""

    name, family = "seed-grinding", "sample"
    what = "Eight honest runs under eight seeds are trained, and the best one is shown."
    expected = bounded("the best of eight seeds instead of a typical one")
    _SEEDS: ClassVar[int] = 8

    def carry_out(self, place: RecordPlace, *, rounds: int) -> Outcome:
        """Train under each seed; each is another contract, and a status lists one."""
        found: list[float] = []
        for seed in range(self._SEEDS):
            bench = place.bench.variant((f"training.seed={seed + 100}",))
            run = bench.once("honest here", lambda b=bench: b.train(Trainer(b, frozenset())))
            found.append(bench.accuracy(bench.state(run, bench.steps)["parameters"]))
        trial = Trial(False, None, "the other seeds' runs belong to other contracts")
        gain = max(found) - statistics.median(found)
        return Outcome((trial,), {"accuracy gained": gain})


ATTACKS = (SampleGrinding(), SelfSampleGrinding(), UnsampledCheat(), SeedGrinding())
