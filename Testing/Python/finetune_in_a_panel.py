"""Fine-tunes on the small abdomen by clicks in its own host, which a test may kill. Prints a line once it has learned.

python finetune_in_a_panel.py DATA_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
sys.path.insert(0, str(REPOSITORY / "Testing" / "Host"))


def learned_steps(training_run) -> int:
    """Steps in the training state of a training run that is on the disk."""
    from HSAMSegmentLib.training.loop.checkpointer import load_state

    state = training_run.state_file(training_run.read_request().model_id)
    return load_state(state)["learner"]["steps"] if state.is_file() else 0


def main() -> int:
    """Start from the model with the title "Tiny SAM" of the store in the environment, and learn for an hour."""
    from slicerhost import start_host
    from small_cases import ABDOMEN_NAMES, small_volume

    host = start_host()
    from finetune_panel_driver import FinetunePanelDriver, add_segmentation, add_volume

    from HSAMSegmentLib.weights.store import Store

    volume, labels = small_volume(Path(sys.argv[1]))
    node = add_volume(volume)
    segmentation = add_segmentation(node, labels, {1: ABDOMEN_NAMES[1], 2: ABDOMEN_NAMES[2]})
    driver = FinetunePanelDriver(host, Store())
    driver.add(node, segmentation)
    driver.ui.startCombo.setCurrentIndex(driver.ui.startCombo.findText("Tiny SAM"))
    driver.ui.minutesBox.value = 60.0
    driver.click(driver.ui.startButton)
    training_run = driver.tab.run._training_run
    driver.wait(lambda: training_run.request_file.is_file())
    driver.wait(lambda: learned_steps(training_run) > 0, seconds=600.0)
    print("LEARNING", flush=True)
    driver.wait(lambda: not driver.tab.run.is_busy, seconds=600.0)
    return 1


if __name__ == "__main__":
    sys.exit(main())
