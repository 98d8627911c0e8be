"""Attacks on the draw: choosing what is audited, or cheating where nobody looks."""

import dataclasses
import hashlib
import statistics
from typing import ClassVar

from anh_jax import attested_run
from anh_jax.redteam.attack import Attack, Outcome, Trial, bounded
from anh_jax.redteam.trainer import Trainer
from attest.envelope import sign
from attest.keys import keyid
from attest.sample import sample_steps, single_escape
from attest.statements import Final, decode_statement, encode_statement
from launch.auditing import Wanted, audit
from launch.auditor_name import Asked
from launch.redteam.place import RecordPlace
from launch.redteam.records import RecordAttack

_BAD = 5
_FINALS = 64


def _draws(place: RecordPlace, nonce: bytes | None) -> list[frozenset[int]]:
    """Return the samples of as many final records as the trainer cares to sign.

    All of them close one run; they differ in bytes that are the trainer's to choose.
    """
    run = place.bench.once("to grind", place.honest)
    told = decode_statement(run.statement("final").payload)
    assert isinstance(told, Final)
    identity = bytes.fromhex(attested_run.run_id(run))
    nonces = {} if nonce is None else {keyid(b"\0" * 32): nonce}
    steps, samples = place.bench.steps, []
    for number in range(_FINALS):
        final = dataclasses.replace(told, metrics={"n": number})
        record = sign(encode_statement(final), [run.key("run")]).record_hash()
        samples.append(frozenset(sample_steps(identity, record, nonces, steps, steps // 4)))
    return samples


def _nonce(number: int) -> bytes:
    return hashlib.sha256(f"nonce {number}".encode()).digest()


class SampleGrinding(Attack[RecordPlace]):
    """Signs final records until the sample leaves its bad step out, without the nonce."""

    name, family = "sample-grinding", "sample"
    what = "64 final records, grown from free bytes, are tried; acme's nonce is not known."
    expected = bounded("one bad step escapes a quarter's sample with 75 %, ground or not")

    def carry_out(self, place: RecordPlace, *, rounds: int) -> Outcome:
        """Choose the final record by a guessed nonce, then draw with the real ones."""
        guessed = _draws(place, _nonce(0))
        clean = [n for n, sample in enumerate(guessed) if _BAD not in sample]
        trials: list[Trial] = []
        for turn in range(8 * rounds):
            real = _draws(place, _nonce(1 + turn))
            for chosen in clean:
                hit = _BAD in real[chosen]
                trials.append(Trial(hit, None, "the bad step is in the sample"))
        escaped = sum(not t.detected for t in trials) / len(trials)
        steps = place.bench.steps
        chance = single_escape(steps, steps // 4)
        return Outcome(tuple(trials), {"escapes": escaped, "escapes by chance": chance})


class SelfSampleGrinding(RecordAttack):
    """Grinds a sample that rests on no nonce, and shows the clean audit."""

    name, family = "self-sample-grinding", "sample"
    what = "Nobody announced an audit, so the trainer grinds a clean sample of its own."

    def attack(self, place: RecordPlace) -> Trial:
        """Grind, which always works, and show the reader an audit by the trainer itself."""
        ground = any(_BAD not in sample for sample in _draws(place, None))
        run = place.honest()
        with place.home():
            audit(run.root, Asked(), Wanted(samples=place.bench.steps // 4))
        place.watch(run)
        reading = place.read(run, place.prove(run))
        words = f"{'ground' if ground else 'not ground'}; {reading.text}"
        return Trial(not reading.accepted, None, words)


class UnsampledCheat(Attack[RecordPlace]):
    """Cheats only on the step that it predicts will not be sampled."""

    name, family = "unsampled-cheat", "sample"
    what = "One step is cheated, chosen by a guess of the sample; the real sample is drawn later."
    expected = bounded("the bad step escapes k of T samples with probability 1 - k/T")

    def carry_out(self, place: RecordPlace, *, rounds: int) -> Outcome:
        """Predict with a guessed nonce, cheat on a step outside, and draw with others."""
        steps = place.bench.steps
        trials: list[Trial] = []
        for turn in range(rounds):
            guess = _draws(place, _nonce(turn))[0]
            bad = min(set(range(1, steps + 1)) - guess)
            for other in range(100):
                sample = _draws_one(place, _nonce(1000 * (turn + 1) + other))
                trials.append(Trial(bad in sample, None, f"step {bad} is in the sample"))
        escaped = sum(not t.detected for t in trials) / len(trials)
        chance = single_escape(steps, steps // 4)
        return Outcome(tuple(trials), {"escapes": escaped, "escapes by chance": chance})


def _draws_one(place: RecordPlace, nonce: bytes) -> frozenset[int]:
    run = place.bench.once("to grind", place.honest)
    identity = bytes.fromhex(attested_run.run_id(run))
    record = run.statement("final").record_hash()
    nonces = {keyid(b"\0" * 32): nonce}
    steps = place.bench.steps
    return frozenset(sample_steps(identity, record, nonces, steps, steps // 4))


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
