"""SamEncoder against segment-anything's own ImageEncoderViT: time, difference, memory, and the machine's limit.

Both encoders have the same weights and see the same image; their samples alternate with each other and with a matrix
product that tells what the machine gave at that moment. Ratios are of medians; the memory is the growth of the resident
set during the first call, each in a process of its own.

    python Testing/Benchmarks/bench_encoder.py --sizes 512 1024 --samples 5
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Python"))

import psutil
import torch
from segment_anything_package import sam_part
from torch import nn

from HSAMSegmentLib.models.encoders.sam_vit import SAM_SIZES, SamEncoder

MIB = 2**20
ENCODER = "sam_vit_b"


def build_original(image_size: int) -> nn.Module:
    """segment-anything's encoder."""
    sizes: dict[str, Any] = SAM_SIZES[ENCODER]
    return sam_part("image_encoder", "ImageEncoderViT")(
        img_size=image_size,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        **sizes,
    ).eval()


def build_ours(image_size: int) -> nn.Module:
    """Our encoder."""
    return SamEncoder(image_size=image_size, **SAM_SIZES[ENCODER]).eval()


BUILDERS: dict[str, Callable[[int], nn.Module]] = {"original": build_original, "ours": build_ours}


def randomize(encoder: nn.Module) -> None:
    """Weights of a plausible size, so that no position term and no residual vanishes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.1 if "pos" in name else parameter[0].numel() ** -0.5)


def flop_count(image_size: int) -> float:
    """Floating-point operations that our encoder cannot do without: two per multiplication of a product."""
    sizes = SAM_SIZES[ENCODER]
    width, depth, side = sizes["embed_dim"], sizes["depth"], image_size // 16
    tokens, global_blocks = side**2, len(sizes["global_attn_indexes"])
    linear = 12 * width**2 * tokens * depth
    pairs = global_blocks * tokens**2 + (depth - global_blocks) * tokens * min(14**2, tokens)
    outside = tokens * (3 * 256 * width + width * 256 + 256 * 256 * 9)
    return 2.0 * (linear + 2 * width * pairs + outside)


class Sample(NamedTuple):
    """Seconds that one call took on the wall and on the processors."""

    wall: float
    cpu: float


def measure(function: Callable[[], Any]) -> Sample:
    """Call once."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu)


def matmul_flops(dtype: torch.dtype, rows: int) -> float:
    """Rate of one product of the encoder's own shape, in floating-point operations per second."""
    x, weight = torch.randn(rows, 768, dtype=dtype), torch.randn(768, 3072, dtype=dtype)
    torch.mm(x, weight)
    return 2.0 * rows * 768 * 3072 / min(measure(lambda: torch.mm(x, weight)).wall for _ in range(3))


def peak_growth_mib(name: str, image_size: int) -> tuple[float, float]:
    """Peak resident memory of a process that calls one encoder once, and how much of it came with the call."""
    arguments = [sys.executable, __file__, "--child", name, "--sizes", str(image_size)]
    peak, before = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()
    return float(peak), float(peak) - float(before)


def run_child(name: str, image_size: int) -> None:
    """Print the peak resident memory in MiB, and the resident memory before the call."""
    import resource

    encoder = BUILDERS[name](image_size)
    randomize(encoder)
    image = torch.rand(1, 3, image_size, image_size)
    before = psutil.Process().memory_info().rss / MIB
    with torch.inference_mode():
        encoder(image)
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB, before)


def compare(image_size: int, samples: int) -> None:
    """Print one block of results."""
    encoders = {name: build(image_size) for name, build in BUILDERS.items()}
    randomize(encoders["original"])
    encoders["ours"].load_state_dict(encoders["original"].state_dict())
    image = torch.rand(1, 3, image_size, image_size)
    times: dict[str, list[Sample]] = {name: [] for name in encoders}
    rates = []
    with torch.inference_mode():
        outputs = {name: encoder(image) for name, encoder in encoders.items()}
        difference = (outputs["ours"] - outputs["original"]).abs().max().item()
        for _ in range(samples):
            rates.append(matmul_flops(torch.float32, 1024))
            for name, encoder in encoders.items():
                times[name].append(measure(partial(encoder, image)))
    report(image_size, times, rates, difference)


def report(image_size: int, times: dict[str, list[Sample]], rates: list[float], difference: float) -> None:
    """Print what was measured for one image size."""
    wall = {name: median(sample.wall for sample in times[name]) for name in times}
    cpu = {name: median(sample.cpu for sample in times[name]) for name in times}
    flops, rate = flop_count(image_size), median(rates)
    print(f"{ENCODER}, {image_size} x {image_size}, batch 1, float32, {torch.get_num_threads()} threads, medians")
    for title, seconds in (("time", wall), ("CPU time", cpu)):
        ratio = seconds["original"] / seconds["ours"]
        print(
            f"  {title:9}original {seconds['original']:.2f} s, ours {seconds['ours']:.2f} s: {ratio:.2f} times as fast"
        )
    print(f"  equal    largest difference of the embeddings {difference:.1e}")
    print(
        f"  limit    {flops / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s (its own products) take {flops / rate:.2f} s"
    )
    print(f"           ours reaches {flops / rate / wall['ours']:.0%} of it")


def compare_memory(image_size: int) -> None:
    """Print the peak memory of both encoders."""
    memory = {name: peak_growth_mib(name, image_size) for name in BUILDERS}
    for name, (peak, growth) in memory.items():
        print(f"{image_size} x {image_size}, memory of {name}: peak {peak:.0f} MiB, of which the call {growth:.0f} MiB")
    whole, of_call = (memory["ours"][index] / memory["original"][index] for index in (0, 1))
    print(f"  ours takes {whole:.0%} of the original's peak, {of_call:.0%} of what its call adds")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--samples", type=int, default=5, help="0 for memory only")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--child", choices=sorted(BUILDERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        run_child(options.child, options.sizes[0])
        return
    fp32, bf16 = matmul_flops(torch.float32, 1024), matmul_flops(torch.bfloat16, 32)
    print(f"matrix products: float32 {fp32 / 1e9:.1f} GFLOP/s, bfloat16 {bf16 / 1e9:.1f} GFLOP/s")
    # First, because a child process starts with the peak of its parent.
    for size in options.sizes:
        compare_memory(size)
    for size in options.sizes if options.samples else ():
        compare(size, options.samples)


if __name__ == "__main__":
    main()
