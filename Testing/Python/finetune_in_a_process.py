"""Fine-tunes a small abdomen or two atria in a process of its own, which a test may kill. Prints what it does.

python finetune_in_a_process.py DATA_FOLDER OPTIONS.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from small_cases import small_case, thin_case

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.training.finetune import finetune
from HSAMSegmentLib.training.request import FinetuneRequest, ValidationMetrics


class Reporter:
    """Says one line at once, and stays at the one where it shall be killed."""

    def __init__(self) -> None:
        self.beginning, self.left = "", 0

    def __call__(self, *words: object) -> None:
        line = " ".join(str(word) for word in words)
        print(line, flush=True)
        self.left -= bool(self.beginning) and line.startswith(self.beginning)
        if self.beginning and self.left == 0:
            time.sleep(600)


say = Reporter()


def tell_flushes() -> None:
    """Say what is being written to the disk, before it is there."""
    flush = os.fsync

    def flush_and_tell(number: int) -> None:
        say("FLUSH", os.readlink(f"/proc/self/fd/{number}"))
        flush(number)

    os.fsync = flush_and_tell


def main() -> int:
    """Fine-tune as the file of options says."""
    torch.set_num_threads(1)
    options = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    say.beginning, say.left = options.pop("stay_at", ("", 0))
    tell_flushes()
    data = Path(sys.argv[1])
    is_thin = options.pop("is_thin", False)
    cases = [thin_case(data), thin_case(data, "la_0RZDK210BSMWAA6467LU")] if is_thin else [small_case(data)]
    folders = {name: Path(options.pop(name)) for name in ("output", "cache_folder")}
    request = FinetuneRequest(device="cpu", image_size=64, **folders, **options)
    try:
        result = finetune(
            request,
            cases=cases,
            progress=lambda progress: say(progress.stage, progress.detail),
            events=lambda event: say("LOOK", event.step) if isinstance(event, ValidationMetrics) else None,
        )
    except HSAMSegmentError as error:
        say("ERROR", type(error).__name__, error)
        return error.exit_code
    best = max(item.mean_dice or 0.0 for item in result.history)
    facts = {
        "best": best,
        "steps": result.steps,
        "stopped": result.stopped,
        "notes": result.notes,
        "seconds": result.seconds,
    }
    say("RESULT", json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
