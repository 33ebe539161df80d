"""SamEncoder against segment-anything's own ImageEncoderViT: time, difference, memory, and the machine's limit.

All encoders have the same weights (random ones of a plausible size) and see the same CT slice. The original runs in
float32 and, converted whole, in bfloat16; ours in float32 and in bfloat16 as segmenting runs it. Their samples
alternate with each other and with matrix products that tell what the machine gave at that moment. Ratios are of
medians; the memory is the growth of the resident set during the first call, each in a process of its own. What a
difference of embeddings means is shown by labels: a linear head is fitted to the original's embedding of the slice, and
Dice compares the labels that it reads from each encoder with those that it reads from the original in float32.

    python Testing/Benchmarks/bench_encoder.py --sizes 512 1024 --samples 5
    python Testing/Benchmarks/bench_encoder.py --encoders sam_vit_l sam_vit_h --sizes 1024 --samples 3
    python Testing/Benchmarks/bench_encoder.py --sizes 1024 --no-memory --shares
"""

from __future__ import annotations

import argparse
import copy
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
from encoder_cost import flop_count
from segment_anything_package import sam_part
from torch import nn

from HSAMSegmentLib.inference.slice_predictor import half_network
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.models.encoders.sam_vit import SAM_SIZES, SamEncoder
from HSAMSegmentLib.runtime.heap import keep_freed_memory

MIB = 2**20
CT = Path(__file__).resolve().parents[1] / "Data" / "ct_totalsegmentator"
SLICE = 15
RIDGE = 1e-3


def ct_slice(image_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A slice of the CT scan as an input [1, 3, S, S] in [0, 1], and the labels [S / 16, S / 16] of its cells."""
    image, labels = (
        read_volume(CT / folder / "ct_example_30.nii.gz").array[SLICE].astype("float32")
        for folder in ("images", "labels")
    )
    window = torch.from_numpy((image + 125) / 400).clamp(0, 1)
    resized = nn.functional.interpolate(window[None, None], size=(image_size, image_size), mode="bilinear")
    side = image_size // 16
    cells = nn.functional.interpolate(torch.from_numpy(labels)[None, None], size=(side, side), mode="nearest-exact")
    return resized.expand(1, 3, -1, -1).contiguous(), cells[0, 0].long()


def linear_head(embedding: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Weights [C + 1, K + 1] of a ridge regression from the cells of an embedding [1, C, h, w] to their labels.

    All classes weigh the same, whatever their size.
    """
    x = with_ones(embedding)
    one_hot = nn.functional.one_hot(labels.flatten()).double()
    weighted = x.T * (one_hot / one_hot.sum(dim=0).clamp(min=1)).sum(dim=1)
    return torch.linalg.solve(weighted @ x + RIDGE * torch.eye(x.shape[1], dtype=torch.float64), weighted @ one_hot)


def with_ones(embedding: torch.Tensor) -> torch.Tensor:
    """Cells [h * w, C + 1] of an embedding, with a constant."""
    cells = embedding[0].flatten(1).T.double()
    return torch.cat([cells, torch.ones(len(cells), 1, dtype=torch.float64)], dim=1)


def mean_dice(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Mean Dice over the structures of the reference."""
    values = [value for value in reference.unique().tolist() if value]
    return sum(
        2
        * int(((found == value) & (reference == value)).sum())
        / int((found == value).sum() + (reference == value).sum())
        for value in values
    ) / len(values)


def build_original(encoder: str, image_size: int) -> nn.Module:
    """segment-anything's encoder."""
    sizes: dict[str, Any] = SAM_SIZES[encoder]
    return sam_part("image_encoder", "ImageEncoderViT")(
        img_size=image_size,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        **sizes,
    ).eval()


def build_ours(encoder: str, image_size: int) -> nn.Module:
    """Our encoder."""
    return SamEncoder(image_size=image_size, **SAM_SIZES[encoder]).eval()


BUILDERS: dict[str, Callable[[str, int], nn.Module]] = {"original": build_original, "ours": build_ours}


def randomize(encoder: nn.Module) -> None:
    """Weights of a plausible size, so that no position term and no residual vanishes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.1 if "pos" in name else parameter[0].numel() ** -0.5)


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


def peak_growth_mib(name: str, encoder: str, image_size: int) -> tuple[float, float]:
    """Peak resident memory of a process that calls one encoder once, and how much of it came with the call."""
    arguments = [sys.executable, __file__, "--child", name, "--encoders", encoder, "--sizes", str(image_size)]
    peak, before = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()
    return float(peak), float(peak) - float(before)


def run_child(name: str, encoder_name: str, image_size: int) -> None:
    """Print the peak resident memory in MiB, and the resident memory before the call."""
    import resource

    encoder = BUILDERS[name](encoder_name, image_size)
    randomize(encoder)
    image = torch.rand(1, 3, image_size, image_size)
    before = psutil.Process().memory_info().rss / MIB
    with torch.inference_mode():
        encoder(image)
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB, before)


def calls(encoder: str, image_size: int) -> dict[str, Callable[[], torch.Tensor]]:
    """What is measured, by its name."""
    original, ours = (BUILDERS[name](encoder, image_size) for name in ("original", "ours"))
    randomize(original)
    ours.load_state_dict(original.state_dict())
    image, _ = ct_slice(image_size)
    whole, half = copy.deepcopy(original).bfloat16(), half_network(ours, torch.bfloat16)

    def autocast() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return half(image)

    return {
        "original float32": partial(original, image),
        "ours float32": partial(ours, image),
        "original bfloat16": partial(whole, image.bfloat16()),
        "ours bfloat16": autocast,
    }


def compare(encoder: str, image_size: int, samples: int, *, with_shares: bool) -> None:
    """Print one block of results."""
    measured = calls(encoder, image_size)
    times: dict[str, list[Sample]] = {name: [] for name in measured}
    rates: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    with torch.inference_mode():
        outputs = {name: call().float() for name, call in measured.items()}
        for _ in range(samples):
            for dtype, found in rates.items():
                found.append(matmul_flops(dtype, 1024))
            for name, call in measured.items():
                times[name].append(measure(call))
    print(f"{encoder}, {image_size} x {image_size}, batch 1, {torch.get_num_threads()} threads, medians")
    report_times(times)
    report_agreement(outputs, ct_slice(image_size)[1])
    report_limit(flop_count(encoder, image_size), times, rates)
    if with_shares:
        with torch.inference_mode():
            report_shares(measured["ours bfloat16"])


def report_times(times: dict[str, list[Sample]]) -> None:
    """Print seconds on the wall and on the processors, and both ratios to the originals."""
    wall = {name: median(sample.wall for sample in found) for name, found in times.items()}
    cpu = {name: median(sample.cpu for sample in found) for name, found in times.items()}
    for title, seconds in (("time", wall), ("CPU time", cpu)):
        for name, value in seconds.items():
            ratios = ", ".join(
                f"{seconds[other] / value:.2f} times as fast as {other}" for other in seconds if "original" in other
            )
            print(f"  {title:9}{name:18}{value:7.3f} s" + (f": {ratios}" if "ours" in name else ""))


def report_agreement(outputs: dict[str, torch.Tensor], labels: torch.Tensor) -> None:
    """Print how far each embedding is from the original in float32, and the labels that a linear head reads from it."""
    exact = outputs["original float32"]
    head = linear_head(exact, labels)
    read = {name: (with_ones(found) @ head).argmax(dim=1) for name, found in outputs.items()}
    fitted = mean_dice(read["original float32"], labels.flatten())
    print(f"  a linear head fitted to the original in float32: mean Dice {fitted:.3f} on the slice it was fitted to")
    print(f"  embedding: standard deviation {exact.std().item():.2f}")
    for name, found in outputs.items():
        difference = (found - exact).abs()
        print(
            f"  {name:18}differs by {difference.mean().item():.1e} in the mean, {difference.max().item():.1e} at most; "
            f"Dice of its labels {mean_dice(read[name], read['original float32']):.4f}"
        )


def report_limit(flops: float, times: dict[str, list[Sample]], rates: dict[torch.dtype, list[float]]) -> None:
    """Print how much of the machine's own product rate ours reaches."""
    for dtype, found in rates.items():
        precision, rate = str(dtype).replace("torch.", ""), median(found)
        seconds = median(sample.wall for sample in times[f"ours {precision}"])
        print(
            f"  limit    {precision}: {flops / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s (its own products) take "
            f"{flops / rate:.2f} s; ours reaches {flops / rate / seconds:.0%} of it"
        )


def report_shares(call: Callable[[], Any]) -> None:
    """Print which operations take the time of a call, by PyTorch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        call()
    operations = sorted(found.key_averages(), key=lambda item: item.self_cpu_time_total, reverse=True)
    total = sum(item.self_cpu_time_total for item in operations)
    shares = ", ".join(f"{item.key} {item.self_cpu_time_total / total:.0%}" for item in operations[:8])
    print(f"  ours bfloat16 spends {shares}")


def compare_memory(encoder: str, image_size: int) -> None:
    """Print the peak memory of both encoders in float32."""
    memory = {name: peak_growth_mib(name, encoder, image_size) for name in BUILDERS}
    for name, (peak, growth) in memory.items():
        print(f"{image_size} x {image_size}, memory of {name}: peak {peak:.0f} MiB, of which the call {growth:.0f} MiB")
    whole, of_call = (memory["ours"][index] / memory["original"][index] for index in (0, 1))
    print(f"  ours takes {whole:.0%} of the original's peak, {of_call:.0%} of what its call adds")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["sam_vit_b"], choices=sorted(SAM_SIZES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--samples", type=int, default=5, help="0 for memory only")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory")
    parser.add_argument("--shares", action="store_true", help="also profile ours in bfloat16, by operation")
    parser.add_argument("--child", choices=sorted(BUILDERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        run_child(options.child, options.encoders[0], options.sizes[0])
        return
    # First, because a child process starts with the peak of its parent.
    for encoder in options.encoders if not options.no_memory else ():
        for size in options.sizes:
            compare_memory(encoder, size)
    keep_freed_memory()
    for encoder in options.encoders if options.samples else ():
        for size in options.sizes:
            compare(encoder, size, options.samples, with_shares=options.shares)


if __name__ == "__main__":
    main()
