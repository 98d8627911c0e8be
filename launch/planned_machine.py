"""The hardware that `anh digest --plan` predicts for: its rates, each with where it is from."""

import dataclasses
import platform
from dataclasses import dataclass

from anh_jax.digest.forecast import Basis, Figure, Machine
from anh_jax.digest.host_rates import HostRates, measure_host, measure_products
from anh_jax.digest.roofline import CHIPS, PLANNED_SHARE, Chip, bound, planned_rate
from anh_jax.environment import cpu_model
from anh_jax.experiment_errors import suggestion
from attest.digest_tree import TILE_BYTES
from launch.bench_figures import BenchFigures, chip_figures, host_figures
from launch.errors import CommandError

CPU = "cpu"
HARDWARE = (*sorted(CHIPS), CPU)

# What bench/digest.py calls the rate of one thread.
_DIGEST = {
    "blake3": "digest_state_gb_per_cpu_second",
    "sha256": "digest_sha256_state_gb_per_cpu_second",
}
TO_HOST = Figure(25e9, Basis.ASSUMED, "bytes a second from a chip to its host")


@dataclass(frozen=True)
class PlannedMachine:
    """Hold the rates by digest algorithm, and those of a host that does everything itself.

    Attributes:
        unit: what `--chips` counts.
        rates: the machine with each algorithm.
        sha256: bytes a second of `hashlib.sha256`, one core.
        notes: sentences about what the numbers leave out.
    """

    unit: str
    rates: dict[str, Machine]
    sha256: Figure
    notes: tuple[str, ...]


def planned_machine(hardware: str) -> PlannedMachine:
    """Return the rates of a chip by name, or of this host as `cpu`; CommandError for any other."""
    host = _Host(host_figures())
    if hardware == CPU:
        peak = Figure(
            measure_products(),
            Basis.MEASURED,
            f"{_here()}: float32 products of side 1024 on all cores",
        )
        rates = {alg: host.machine(alg, peak) for alg in ("blake3", "sha256")}
        notes = (
            "a host hashes on one core, after the step: the two are not overlapped",
            "every host hashes all it holds: here the whole state, as with mesh.data",
        )
        return PlannedMachine("host", rates, host.sha256(), notes)
    if hardware not in CHIPS:
        raise CommandError(
            f"--hardware {hardware}: unknown{suggestion(hardware.lower(), list(HARDWARE))}; "
            f"use one of {', '.join(HARDWARE)}"
        )
    chip = CHIPS[hardware]
    rates = {alg: _chip_machine(chip, alg, host) for alg in ("blake3", "sha256")}
    notes = (
        "the time to launch a digest's kernels is left out: it is most of a small state's digest",
        "the peak is bf16; class f32 multiplies more slowly, so digests take a smaller share",
        *(f"{hardware}: assumes {words}" for words in chip.assumptions),
    )
    return PlannedMachine("chip", rates, host.sha256(), notes)


def _chip_machine(chip: Chip, alg: str, host: "_Host") -> Machine:
    measured = chip_figures(chip) if alg == "blake3" else None  # the benchmark times no other
    name = f"tiles of {TILE_BYTES >> 10} KiB"
    rate = None if measured is None else measured.figure("digest_device", name, scale=1e9)
    bounded = Figure(
        planned_rate(chip, alg),
        Basis.ASSUMED,  # as its share of the bound is; the bound alone would be a roofline
        f"an assumed {PLANNED_SHARE:.0%} of the bound of {bound(chip, alg) / 1e12:.2f} TB/s",
    )
    return Machine(
        peak=Figure(chip.bf16_flops_per_s, Basis.ROOFLINE, "dense bf16, data sheet"),
        rate=rate or bounded,
        per_tensor=Figure(0.0, Basis.COUNTED, "tensors of one tile size are hashed together"),
        row=host.signature(),
    )


class _Host:
    """Give a figure from the benchmarks of a host like this one, else from a moment's measuring."""

    def __init__(self, figures: BenchFigures | None) -> None:
        self._figures = figures
        self._measured: dict[str, HostRates] = {}

    def machine(self, alg: str, peak: Figure) -> Machine:
        return Machine(
            peak=peak,
            rate=self._figure("digest", _DIGEST[alg], 1e9) or self._now(alg, "digest"),
            per_tensor=self._figure("digest", "small_tensor_us", 1e-6)
            or self._now(alg, "small_tensor"),
            row=self.signature(),
        )

    def sha256(self) -> Figure:
        return self._figure("digest", "sha256_leaves_state_gb_per_cpu_second", 1e9) or self._now(
            "sha256", "sha256"
        )

    def signature(self) -> Figure:
        return self._figure("signing", "record_us", 1e-6) or self._now("sha256", "signature")

    def _figure(self, bench: str, name: str, scale: float) -> Figure | None:
        return None if self._figures is None else self._figures.figure(bench, name, scale=scale)

    def _now(self, alg: str, name: str) -> Figure:
        if alg not in self._measured:
            self._measured[alg] = measure_host(alg)
        value = dataclasses.asdict(self._measured[alg])[name]
        return Figure(value, Basis.MEASURED, f"{_here()}: a small sample, CPU time, just now")


def _here() -> str:
    return f"this host ({cpu_model()}, {platform.system()})"
