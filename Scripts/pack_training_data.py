"""Pack the slices of built-in tasks into one small file each, to train on a machine without the scans.

python Scripts/pack_training_data.py --tasks abdomen-ct --data ../shared/data --output Scratch
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.builtin_tasks import dataset_cases, tasks_of
from recipes.packed_slices import scan_slices, write_pack
from recipes.task_data import dataset_case

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Pack."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "Scratch", help="folder of the files")
    parser.add_argument("--tasks", nargs="*", default=[], help="ids of the tasks; default: the joint training")
    options = parser.parse_args()
    options.output.mkdir(exist_ok=True)
    for task in tasks_of(options.tasks):
        entries = dataset_cases(options.data / task.folder)
        scans = [scan_slices(dataset_case(entry, task), task) for entry in entries]
        path = options.output / f"{task.id}.npz"
        bits = write_pack(path, task, scans)
        print(f"{path}: {path.stat().st_size / (1 << 20):.1f} MiB, {bits} bits per pixel", flush=True)


if __name__ == "__main__":
    main()
