"""Whether fine-tuning keeps to its minutes with a slow encoder, and how soon it answers a cancel in each of its stages.

The encoder is SAM's ViT-B with random weights, in the official layout, in a store of its own; the scan is the phantom.

    python Testing/Benchmarks/bench_finetune_pace.py --minutes 1 2
    python Testing/Benchmarks/bench_finetune_pace.py --minutes --cancel
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Python"))

import torch
from segment_anything_package import sam_modeling

from HSAMSegmentLib.errors import CancelledError
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.runtime.progress import CancelToken, Progress
from HSAMSegmentLib.training.data.cases import Case, make_case
from HSAMSegmentLib.training.finetune import finetune
from HSAMSegmentLib.training.request import FinetuneRequest
from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store

WAYS = {"frozen": {}, "lora": {"lora_blocks": 2}, "full": {"adaptation": "full"}}
STAGES = ("Building the network", "Encoding the slices", "Learning")


def random_sam(path: Path) -> None:
    """SAM with ViT-B as its authors save it."""
    sam = sam_modeling()
    encoder = sam.ImageEncoderViT(
        depth=12,
        embed_dim=768,
        img_size=1024,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
        num_heads=12,
        use_rel_pos=True,
        global_attn_indexes=(2, 5, 8, 11),
        window_size=14,
        out_chans=256,
    )
    prompts = sam.PromptEncoder(
        embed_dim=256, image_embedding_size=(64, 64), input_image_size=(1024, 1024), mask_in_chans=16
    )
    transformer = sam.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    decoder = sam.MaskDecoder(transformer_dim=256, transformer=transformer)
    torch.save(sam.Sam(image_encoder=encoder, prompt_encoder=prompts, mask_decoder=decoder).state_dict(), path)


def request(folder: Path, size: int, way: str, **options: object) -> FinetuneRequest:
    """A fine-tuning on the random encoder."""
    output = folder / f"{way}-{time.monotonic_ns()}.safetensors"
    settings = {"encoder": "random-sam", "image_size": size, "device": "cpu", "cache_folder": folder}
    return FinetuneRequest(output=output, **settings, **WAYS[way], **options)


def keep_time(folder: Path, case: Case, size: int, way: str, minutes: float) -> None:
    """Fine-tune for some minutes and print how long it took."""
    began = time.monotonic()
    result = finetune(request(folder, size, way, minutes=minutes), cases=[case])
    share = (time.monotonic() - began) / (60.0 * minutes)
    print(f"{way} {size} px, {minutes:g} min: {100 * share:.0f} % of the time, {result.steps} steps", flush=True)


def answer(folder: Path, case: Case, size: int, way: str, stage: str, delay: float) -> None:
    """Cancel a moment after a stage begins and print how long the answer takes."""
    token, cancelled = CancelToken(), []
    timers: list[threading.Timer] = []

    def cancel() -> None:
        cancelled.append(time.monotonic())
        token.cancel()

    def begin(name: str) -> None:
        if name == stage and not timers:
            timers.append(threading.Timer(delay, cancel))
            timers[0].start()

    def told(progress: Progress) -> None:
        begin(progress.stage)

    options = request(folder, size, way, epochs=2, save_seconds=1e9)
    try:
        finetune(options, cases=[case], progress=told, cancel=token)
        kept = "kept the best so far"
    except CancelledError:
        kept = "nothing to keep yet"
    print(f"{way} {size} px, {stage}: answered after {time.monotonic() - cancelled[0]:.2f} s, {kept}", flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["frozen", "lora"])
    parser.add_argument("--minutes", type=float, nargs="*", default=[1.0])
    parser.add_argument("--cancel", action="store_true", help="measure the answer to a cancel in every stage")
    parser.add_argument("--delay", type=float, default=0.7, help="seconds from the beginning of a stage to the cancel")
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    case = make_case(*abdomen_phantom(geometry=phantom_geometry((256, 256, options.slices), (1.25, 1.25, 16.0))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ[HOME_VARIABLE] = name
        random_sam(folder / "sam.pth")
        Store(folder).import_file(folder / "sam.pth", model_id="random-sam")
        for size in options.sizes:
            for way in options.ways:
                for minutes in options.minutes:
                    keep_time(folder, case, size, way, minutes)
                for stage in STAGES if options.cancel else ():
                    answer(folder, case, size, way, stage, options.delay)


if __name__ == "__main__":
    main()
