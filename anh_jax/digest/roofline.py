"""What bounds the rate of a state digest on a chip: constants with their sources, and counts.

A roofline is an upper bound from data sheets, never a measurement: whoever prints a bound from here
labels it `roofline`, and a planned rate, which is an assumed share of it, `assumed`. What no data
sheet states is listed in the chip's `assumptions`.

Integer rate. NVIDIA's CUDA programming guide (arithmetic instructions, throughput of native
instructions) gives 64 results per clock and SM for 32-bit add, logic and shift at compute
capability 9.0. The scaling book (appendix A, "How to think about TPUs") gives a TPU core 8 x 128
lanes with 4 independent ALUs each: 4096 operations per clock. No public table says how many of the
four take shifts.

Operation counts of one compression (64 bytes): see `BLAKE3_OPS` and `SHA256_OPS`. The counts
of the lowered Pallas kernels are tested against these.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Platform: TypeAlias = Literal["gpu", "tpu"]

BLOCK_BYTES = 64
CHUNK_BYTES = 1024

# Of the bound, what a kernel is planned to reach. Assumption: dependent instructions, register
# pressure, loads and the tail of a grid take the rest; no accelerator has confirmed it yet.
PLANNED_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Chip:
    """Hold what a data sheet says about one chip (all its cores), per second.

    `int32_ops_per_s` counts 32-bit integer instructions (add, logic, shift), not multiply-adds
    twice. `bf16_flops_per_s` is dense.
    """

    name: str
    platform: Platform
    int32_ops_per_s: float
    hbm_bytes_per_s: float
    bf16_flops_per_s: float
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CompressionOps:
    """Count the 32-bit integer instructions of one compression of 64 bytes.

    GPU: a three-operand add is one IADD3, any logic of three operands one LOP3, a rotation one
    funnel shift (SHF) or byte permute (PRMT). TPU: two-operand adds and logic; a rotation is two
    shifts and an or.
    """

    adds: int
    logic: int
    shifts: int

    @property
    def total(self) -> int:
        """Return all instructions."""
        return self.adds + self.logic + self.shifts


# BLAKE3 (specification, section 2.2): 7 rounds of 8 quarter rounds; each has 2 sums of three, 2
# sums of two, 4 xors and 4 rotations. 8 xors make the chaining value.
_QUARTER_ROUNDS = 7 * 8
BLAKE3_OPS: dict[Platform, CompressionOps] = {
    "gpu": CompressionOps(
        adds=4 * _QUARTER_ROUNDS, logic=4 * _QUARTER_ROUNDS + 8, shifts=4 * _QUARTER_ROUNDS
    ),
    "tpu": CompressionOps(
        adds=6 * _QUARTER_ROUNDS, logic=8 * _QUARTER_ROUNDS + 8, shifts=8 * _QUARTER_ROUNDS
    ),
}

# SHA-256 (FIPS 180-4, 6.2.2): 64 rounds and 48 schedule words, 8 final adds. A round has 6
# rotations, 4 three-operand logic functions (two sums, Ch, Maj) and 7 adds (4 IADD3); a schedule
# word 4 rotations, 2 shifts, 2 three-operand xors and 3 adds (2 IADD3). In two-operand logic a
# sum takes 2 xors, Ch 3 operations and Maj 4.
SHA256_OPS: dict[Platform, CompressionOps] = {
    "gpu": CompressionOps(
        adds=64 * 4 + 48 * 2 + 8, logic=64 * 4 + 48 * 2, shifts=64 * 6 + 48 * (4 + 2)
    ),
    "tpu": CompressionOps(
        adds=64 * 7 + 48 * 3 + 8,
        logic=64 * (6 + 2 * 2 + 3 + 4) + 48 * (4 + 2 * 2),
        shifts=64 * 6 * 2 + 48 * (4 * 2 + 2),
    ),
}

# NVIDIA H100 and H200 data sheets (SXM): 3.35 and 4.8 TB/s, 989 TFLOP/s dense bf16, 132 SMs. The
# boost clock is 1.98 GHz (67 TFLOP/s float32 = 132 x 128 x 2 x 1.98 GHz).
_HOPPER_INT32 = 132 * 64 * 1.755e9
_HOPPER_CLOCK = "a sustained clock of 1.755 GHz (boost is 1.98 GHz)"
_FUNNEL = "funnel shifts at the rate of shifts (at half of it the bound is a quarter lower)"

CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("h100", "gpu", _HOPPER_INT32, 3.35e12, 989e12, (_HOPPER_CLOCK, _FUNNEL)),
        Chip("h200", "gpu", _HOPPER_INT32, 4.8e12, 989e12, (_HOPPER_CLOCK, _FUNNEL)),
        # NVIDIA HGX B200 data sheet, an eighth of eight: 8 TB/s, 2.25 PFLOP/s dense bf16.
        Chip(
            "b200",
            "gpu",
            148 * 64 * 1.8e9,
            8.0e12,
            2250e12,
            (
                "148 SMs with 64 32-bit integer results per clock, as compute capability 9.0",
                "a sustained clock of 1.8 GHz",
                _FUNNEL,
            ),
        ),
        # Cloud TPU documentation: v5e 819 GB/s, 197 TFLOP/s. The scaling book gives 1.5 GHz, as
        # does 197 TFLOP/s over 4 MXUs of 128 x 128 multiply-adds.
        Chip("v5e", "tpu", 4096 * 1.5e9, 0.819e12, 197e12, ("all four ALUs take shifts",)),
        # Cloud TPU documentation: v5p 2765 GB/s, 459 TFLOP/s; two cores. (JAX's own table has
        # 2.46 TB/s.) 1.75 GHz is 459 TFLOP/s over 8 MXUs of 128 x 128 multiply-adds.
        Chip(
            "v5p",
            "tpu",
            2 * 4096 * 1.75e9,
            2.765e12,
            459e12,
            (
                "all four ALUs take shifts",
                "a clock of 1.75 GHz, from the bf16 rate",
                "both cores get an equal share of the chunks",
            ),
        ),
        # Cloud TPU documentation: v6e 1640 GB/s, 918 TFLOP/s.
        Chip(
            "v6e",
            "tpu",
            4096 * 1.75e9,
            1.64e12,
            918e12,
            (
                "all four ALUs take shifts",
                "a clock of 1.75 GHz, as v5p",
                "4 ALUs a lane, as in earlier generations",
            ),
        ),
    )
}

# What JAX calls a device (`device_kind`), in lower case, by the words that tell it apart.
_KINDS = (
    ("h200", "h200"),
    ("h100", "h100"),
    ("b200", "b200"),
    ("tpu v5 lite", "v5e"),
    ("tpu v5e", "v5e"),
    ("tpu v6 lite", "v6e"),
    ("tpu v6e", "v6e"),
    ("tpu v5", "v5p"),
)


def chip_of(device_kind: str) -> Chip | None:
    """Return the chip that JAX's `device_kind` names, or None if no constants are known."""
    kind = device_kind.lower()
    return next((CHIPS[name] for words, name in _KINDS if words in kind), None)


def ops_per_byte(platform: Platform, alg: str) -> float:
    """Return the 32-bit integer instructions per byte of state, tree included.

    `blake3`: 16 compressions a chunk of 1 KiB, and one more for the parent or node above it.
    `sha256`: one chain of compressions a tile; its padding and the nodes above are below 1 % at
    the tile sizes of the format and left out.
    """
    if alg == "sha256":
        return SHA256_OPS[platform].total / BLOCK_BYTES
    return BLAKE3_OPS[platform].total / BLOCK_BYTES * (1 + BLOCK_BYTES / CHUNK_BYTES)


def bound(chip: Chip, alg: str) -> float:
    """Return the roofline of a chip in bytes of state per second: the ALUs', or the HBM's if less.

    The state is read once; what is written is 3 % of it at most.
    """
    alu = chip.int32_ops_per_s / ops_per_byte(chip.platform, alg)
    return min(alu, chip.hbm_bytes_per_s)


def planned_rate(chip: Chip, alg: str) -> float:
    """Return the bytes of state per second to plan with where nothing was measured."""
    return PLANNED_SHARE * bound(chip, alg)
