"""Claim: what compilers make of the digest's kernels, counted without the chips.

libtpu and Triton compile for chips that are not there, and list the result. Counted are the
instruction bundles of a TPU's loop over blocks, with the share of their vector slots that is used,
and the instructions, registers and spills of a GPU's. The bytes per second follow from the counts
and the clock of `roofline.py`: they are labelled `static`, as they know nothing of memory.

    pip install 'jax[tpu]' triton && PYTHONPATH=. python bench/digest_kernels.py
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reporting import Report, parser, say

CLAIM = "digest kernels as compiled: bundles or instructions of a block, and the rate they allow"
_TOPOLOGIES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
_GPUS = {"h200": 90, "b200": 100}
_ROWS = 1 << 14
# In the listing of a TPU's slots: vector arithmetic, and stores that spill a register.
_VALU, _SPILL, _SLOTS = 2, 8, 10


def main() -> None:
    options = parser(CLAIM)
    options.add_argument("--list-tpu", metavar="TOPOLOGY", help="(of this program, to itself)")
    options = options.parse_args()
    if options.list_tpu:
        _compile_tpu(options.list_tpu)
        return
    report = Report(CLAIM)
    for part in (_tpus, _gpus):
        try:
            part(report)
        except ImportError as error:
            say(f"left out: {error}")
    report.close(options.form)


def _tpus(report: Report) -> None:
    import libtpu  # noqa: F401  # that it is here is all

    from anh_jax.digest.pallas_tpu import LANES, STATE_ROWS
    from anh_jax.digest.roofline import CHIPS, bound

    rows = list[list[str]]()
    step_bytes = STATE_ROWS * LANES * 1024
    for name, topology in _TOPOLOGIES.items():
        say(f"{name}: compiling")
        block, rest, used, spills = _tpu_listing(topology)
        chip = CHIPS[name]
        # A vector unit has 4 slots of 1024 lanes; a chip with more has more cores.
        clock_of_cores = chip.int32_ops_per_s / 4096
        rate = step_bytes / (16 * block + rest) * clock_of_cores
        share = rate / (bound(chip, "blake3") * 17 / 16)
        cells = (block, rest, f"{100 * used:.1f} %", spills)
        rows.append([name, *map(str, cells), f"{rate / 1e9:.0f}", f"{100 * share:.0f} %"])
        report.figure(f"static rate of chunks, {name}", rate / 1e9, "GB/s")
    header = ["chip", "bundles a block", "the rest of a step", "vector slots", "spills"]
    report.table(
        f"TPU, {STATE_ROWS * LANES} chunks a grid step",
        [*header, "GB/s (static)", "of ALU roofline"],
        rows,
    )


def _tpu_listing(topology: str) -> tuple[int, int, float, int]:
    """Return bundles of the inner loop and of the rest, its share of vector slots, its spills."""
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
        environment = os.environ | {
            "LIBTPU_INIT_ARGS": flags,
            "TPU_SKIP_MDS_QUERY": "1",
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_COMPILATION_CACHE": "false",
        }
        command = [sys.executable, __file__, "--list-tpu", topology]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        (listing,) = Path(folder).glob("*blake3_chunks*[0-9]-final_bundles.txt")
        (slots,) = Path(folder).glob("*blake3_chunks*final_hlo-static-per-bundle-utilization.txt")
        bundles = re.findall(r"^\s*(0x[0-9a-f]+|0)\s+\w*\s*:\s*(>*)", listing.read_text(), re.M)
        use = [[int(cell) for cell in line.split()] for line in slots.read_text().splitlines()
               if re.fullmatch(r"[\d\s]+", line) and len(line.split()) == _SLOTS][1:]  # fmt: skip
    inner = [int(number, 16) for number, depth in bundles if depth == ">>"]
    first, count = min(inner), max(inner) - min(inner) + 1
    loop = use[first : first + count]
    rest = sum(depth == ">" for _, depth in bundles)
    arithmetic = sum(row[_VALU] for row in loop) / (4 * count)
    return count, rest, arithmetic, sum(row[_SPILL] for row in loop)


def _compile_tpu(topology: str) -> None:
    import jax
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    from anh_jax.digest.pallas_tpu import tpu_kernels

    device = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices[0]
    one = SingleDeviceSharding(device)
    hashed = jax.jit(tpu_kernels().chunks, static_argnums=3, out_shardings=one)
    hashed.lower(*_operands(jax, sharding=one), 64).compile()


def _operands(jax: Any, **where: Any) -> list[Any]:
    shapes = ((_ROWS, 256), (_ROWS,), (8,))
    return [jax.ShapeDtypeStruct(shape, jax.numpy.uint32, **where) for shape in shapes]


def _gpus(report: Report) -> None:
    import triton
    from triton.backends.compiler import GPUTarget

    from anh_jax.digest.pallas_gpu import PROGRAM_WARPS

    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    rows = list[list[str]]()
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "chunks.ttir"), Path(folder, "chunks.cubin")
        for kernel, lower in {"rows": _lower_rows, **_IN_PLACE}.items():
            source.write_text(_triton_source(lower))
            for name, capability in _GPUS.items():
                say(f"{kernel}, {name}: compiling")
                target = GPUTarget("cuda", capability, 32)
                options = {"num_warps": PROGRAM_WARPS, "num_stages": 1}
                made = triton.compile(str(source), target=target, options=options)
                binary.write_bytes(made.asm["cubin"])
                usage = _output(tools / "cuobjdump", "-res-usage", binary)
                sass = _output(tools / "nvdisasm", "-c", binary)
                found = Counter(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z]+\d*)", sass))
                registers = re.findall(r"REG:(\d+)", usage)[-1]
                counts = [found[key] for key in ("LOP3", "SHF", "IADD3", "IMAD")]
                wide = len(re.findall(r"LDG\.E\.128", sass))
                cells = (*counts, _in_loop(sass), wide, registers, found["STL"])
                rows.append([kernel, name, *map(str, cells)])
                report.figure(f"registers, {kernel}, {name}", float(registers), "registers")
    header = ["chunks of", "chip", "LOP3", "SHF", "IADD3", "IMAD", "in the loop", "LDG.128"]
    report.table(
        "GPU, instructions of the kernel with one unrolled block",
        [*header, "registers", "spills"],
        rows,
    )


def _in_loop(sass: str) -> int:
    """Return the instructions that one block takes: the longest way through the longest loop."""
    labels, lines = dict[str, int](), list[str]()
    for line in sass.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line.strip()):
            labels[label[1]] = len(lines)
        elif re.search(r"/\*[0-9a-f]{4,}\*/\s+\S", line):
            lines.append(line)
    leads = [re.search(r"BRA\b.*`\((\.L_x_\d+)\)", line) for line in lines]
    targets = [labels[jump[1]] if jump else None for jump in leads]
    loops = [(at - to, to, at) for at, to in enumerate(targets) if to is not None and to < at]
    if not loops:
        return 0
    _, first, last = max(loops)
    longest = {last: 1}
    for at in range(last - 1, first - 1, -1):
        target, always = targets[at], "@" not in lines[at]
        ways = [] if target is not None and always else [longest[at + 1]]
        if target is not None and target in longest:
            ways.append(longest[target])
        longest[at] = 1 + max(ways)
    return longest[first]


def _lower_rows(jax: Any, kernels: Any) -> None:
    traced = jax.jit(kernels.chunks, static_argnums=3).trace(*_operands(jax), 64)
    traced.lower(lowering_platforms=("cuda",))


def _lower_tensors(shape: tuple[int, ...], dtype: str, count: int, jax: Any, kernels: Any) -> None:
    from anh_jax.digest.block_cut import block_cut
    from attest.digest_tree import tile_dims, tile_grid

    itemsize = jax.numpy.dtype(dtype).itemsize
    grid = tile_grid(shape, itemsize)
    cut = block_cut(shape, tile_dims(shape, grid), grid, itemsize)
    of = jax.ShapeDtypeStruct
    first, key = of((), jax.numpy.int32), of((8,), jax.numpy.uint32)
    traced = jax.jit(
        lambda tensors, first, key: kernels.tensor_chunks(tensors, cut, first, key, 64)
    ).trace([of(shape, dtype)] * count, first, key)
    traced.lower(lowering_platforms=("cuda",))


_IN_PLACE = {
    f"{count} tensors {shape} {dtype}": functools.partial(_lower_tensors, shape, dtype, count)
    for shape, dtype, count in (
        ((768, 2304), "float32", 1),
        ((768, 2304), "float32", 36),
        ((50257, 768), "float32", 3),
        ((768, 3072), "bfloat16", 36),
        ((768, 3072), "int8", 36),
    )
}


def _triton_source(lower_for_cuda: Callable[[Any, Any], None]) -> str:
    """Return the Triton IR that Pallas makes of the kernel for chunks."""
    import jax
    from jax._src.pallas.triton import lowering  # there is no public way to this text
    from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

    from anh_jax.digest.pallas_gpu import gpu_kernels

    caught, lower = list[str](), lowering.lower_jaxpr_to_triton_module

    def catch(*arguments: Any, **options: Any) -> Any:
        result = lower(*arguments, **options)
        caught.append(str(result.module.operation.get_asm(enable_debug_info=False)))
        return result

    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    lowering.lower_jaxpr_to_triton_module = catch
    try:
        with use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
            lower_for_cuda(jax, gpu_kernels())
    finally:
        lowering.lower_jaxpr_to_triton_module = lower
    return caught[0]


def _output(*command: Any) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
