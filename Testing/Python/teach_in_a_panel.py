"""Teaches the small abdomen by clicks in a host of its own, which a test may kill. Prints a line once it has learned.

python teach_in_a_panel.py DATA_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
sys.path.insert(0, str(REPOSITORY / "Testing" / "Host"))


def learned_steps(course) -> int:
    """Steps in the training state of a course that is on the disk."""
    from HSAMSegmentLib.training.state_files import load_state

    state = course.state_file(course.read_request().model_id)
    return load_state(state)["learner"]["steps"] if state.is_file() else 0


def main() -> int:
    """Start from the model with the title "Tiny SAM" of the store in the environment, and learn for an hour."""
    from slicerhost import start_host
    from small_cases import ABDOMEN_NAMES, small_volume

    host = start_host()
    from teach_panel_stand import TeachStand, add_segmentation, add_volume

    from HSAMSegmentLib.weights.store import Store

    volume, labels = small_volume(Path(sys.argv[1]))
    node = add_volume(volume)
    segmentation = add_segmentation(node, labels, {1: ABDOMEN_NAMES[1], 2: ABDOMEN_NAMES[2]})
    stand = TeachStand(host, Store())
    stand.add(node, segmentation)
    stand.ui.startCombo.setCurrentIndex(stand.ui.startCombo.findText("Tiny SAM"))
    stand.ui.minutesBox.value = 60.0
    stand.click(stand.ui.startButton)
    course = stand.part.run._course
    stand.wait(lambda: course.request_file.is_file())
    stand.wait(lambda: learned_steps(course) > 0, seconds=600.0)
    print("LEARNING", flush=True)
    stand.wait(lambda: not stand.part.run.is_busy, seconds=600.0)
    return 1


if __name__ == "__main__":
    sys.exit(main())
