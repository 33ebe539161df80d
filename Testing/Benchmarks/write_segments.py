"""How long the main thread is busy from a finished result (512 x 512 x 300, 8 organs) to segments that can be seen.

Compares the shared cropped image with Slicer's own ways. Run: `python Testing/Benchmarks/write_segments.py`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPE = (300, 512, 512)
COUNT = 8


def _phantom() -> np.ndarray:
    """Eight ellipsoids of the size of organs."""
    grid = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    labels = np.zeros(SHAPE, np.uint8)
    for value in range(1, COUNT + 1):
        center = (60 + 22 * value, 130 + 80 * (value % 4), 130 + 80 * (value % 3))
        distance = sum(((axis - middle) / radius) ** 2 for axis, middle, radius in zip(grid, center, (50, 60, 70)))
        labels[distance < 1] = value
    return labels


def _timed(action) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    sys.path.insert(0, str(REPOSITORY / "Testing" / "Host"))
    from slicerhost import start_host

    start_host()
    import slicer

    from HSAMSegmentLib.labels.label_set import Label
    from HSAMSegmentLib.slicer.nodes.segmentations import segments as bridge
    from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry
    from HSAMSegmentLib.workflows.segment.segment_request import OrganOutcome, SegmentOutcome, write_labels

    labels = _phantom()
    volume = slicer.util.addVolumeFromArray(np.zeros(SHAPE, np.int16), np.diag([-0.8, -0.8, 1.0, 1.0]), "Scan")
    names = [Label(value, f"Organ {value}", (1.0, value / 10, 0.2)) for value in range(1, COUNT + 1)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "labels.npy"
        box = write_labels(labels, file)
        organs = tuple(OrganOutcome(label, 1.0, 0.9, (1, 1, 1), (1, 1, 1)) for label in names)
        outcome = SegmentOutcome(volume_geometry(volume), box, str(file), organs, "phantom", "Phantom")
        times = []
        for _ in range(5):
            node = bridge.create_segmentation(volume, "Organs")
            times.append(_timed(lambda node=node: bridge.write_outcome(outcome, volume, node)))
        print(f"shared cropped image, new node: {min(times):.3f} s (median {sorted(times)[2]:.3f} s of 5)")
        again = [_timed(lambda: bridge.write_outcome(outcome, volume, node)) for _ in range(5)]
        print(f"the same, replacing a run:      {min(again):.3f} s (median {sorted(again)[2]:.3f} s of 5)")
    one_by_one = bridge.create_segmentation(volume, "One by one")

    def write_one_by_one() -> None:
        for label in names:
            one_by_one.GetSegmentation().AddEmptySegment(label.name, label.name)
            mask = (labels == label.value).astype(np.uint8)
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask, one_by_one, label.name, volume)

    usual = _timed(write_one_by_one)
    print(f"updateSegmentBinaryLabelmapFromArray: {usual:.2f} s, {usual / min(times):.0f} times as long")
    same = all(
        np.array_equal(
            slicer.util.arrayFromSegmentBinaryLabelmap(node, bridge.segment_id(label.name), volume) > 0,
            labels == label.value,
        )
        for label in names[:2]
    )
    print(f"voxels equal: {same}")


if __name__ == "__main__":
    main()
