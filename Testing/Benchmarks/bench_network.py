"""Processor time of the built-in networks per slice, in float32 and bfloat16, on one thread.

    python Testing/Benchmarks/bench_network.py
    python Testing/Benchmarks/bench_network.py --models abdomen-ct --reference /path/to/another/checkout

The samples of all networks alternate, and those of another checkout with them if one is named, so that the ratios hold
on a machine that does other things as well; processor time, not the clock. The input is noise. `--operations` lists
where the time goes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = ("abdomen-mr-t2", "cardiac-mr-bssfp", "left-atrium-lge", "abdomen-ct")
PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    """Read the options, start one process per checkout, alternate between them, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--reference", type=Path, help="another checkout of this repository")
    parser.add_argument("--operations", action="store_true", help="list the operations of the first model")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.models)
    elif options.operations:
        list_operations(options.models[0])
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Print milliseconds per slice, and the ratio to the other checkout."""
    places = {"this": REPOSITORY, **({"reference": options.reference} if options.reference else {})}
    servers = {name: start(place, options.models) for name, place in places.items()}
    times: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(options.samples):
        for model in options.models:
            for precision in PRECISIONS:
                for name, server in servers.items():
                    times.setdefault((model, precision, name), []).append(ask(server, model, precision))
    for model in options.models:
        for precision in PRECISIONS:
            ours = median(times[model, precision, "this"])
            line = f"{model:18}{precision:9}{ours * 1e3:6.1f} ms per slice"
            if options.reference:
                other = median(times[model, precision, "reference"])
                line += f", reference {other * 1e3:.1f} ms: {other / ours:.2f} times as fast"
            print(line)
    for server in servers.values():
        server.stdin.close()
        server.wait()


def start(place: Path, models: list[str]) -> subprocess.Popen:
    """A process that measures the package of a checkout when asked."""
    command = [sys.executable, __file__, "--serve", "--models", *models]
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=place
    )


def ask(server: subprocess.Popen, model: str, precision: str) -> float:
    """Seconds of processor time per slice."""
    server.stdin.write(json.dumps([model, precision]) + "\n")
    server.stdin.flush()
    return float(server.stdout.readline())


def serve(models: list[str]) -> None:
    """Answer questions until the input ends."""
    try:
        from HSAMSegmentLib.runtime.heap import keep_freed_memory

        keep_freed_memory()
    except ImportError:
        print("The reference keeps no freed memory.", file=sys.stderr)
    runs = {(model, precision): prepared(model, precision) for model in models for precision in PRECISIONS}
    for line in sys.stdin:
        run, slices = runs[tuple(json.loads(line))]
        started = time.process_time()
        run()
        print((time.process_time() - started) / slices, flush=True)


def prepared(model: str, precision: str):
    """A call that takes a batch of noise through a network as segmenting does, and its slices; called once already."""
    import torch

    from HSAMSegmentLib.inference.slice_predictor import SlicePredictor
    from HSAMSegmentLib.inference.through_plane_smoothing import ThroughPlaneSmoothing
    from HSAMSegmentLib.weights.loading import load_model

    torch.set_num_threads(1)
    network = load_model(model).network
    os.environ["HSAMSEGMENT_PRECISION"] = precision
    smoothing = ThroughPlaneSmoothing(sigma_mm=0.0, slice_spacing_mm=1.0, count=1)
    predictor = SlicePredictor(network, device="cpu", precision="auto", batch_size=None, smoothing=smoothing)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(predictor.batch_size, 3, network.image_size, network.image_size, generator=generator)

    def run() -> None:
        with torch.inference_mode():
            predictor._forward(images)

    run()
    return run, len(images)


def list_operations(model: str) -> None:
    """Print torch's own table."""
    from torch.profiler import ProfilerActivity, profile

    run, _ = prepared(model, "bfloat16")
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        run()
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=30))


if __name__ == "__main__":
    main()
