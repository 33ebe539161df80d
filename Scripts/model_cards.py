"""Write the cards of the built-in models from their manifests to Docs/builtin_models.md.

python Scripts/model_cards.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from HSAMSegmentLib.report.model_card import model_card
from HSAMSegmentLib.weights.bundle import read_manifest
from recipes.builtin_tasks import SHIPPED_TASKS

REPOSITORY = Path(__file__).resolve().parents[1]
INTRODUCTION = """# The built-in models

Written by `Scripts/model_cards.py` from the manifests of the bundles in `Resources/Models`; do not edit by hand.
Trained by `Scripts/train_builtin.py`, evaluated and written by `Scripts/export_builtin.py`. Each has a compact encoder
and an H-SAM head (paper form); the two heart models share one encoder, in the bundle of the first.
"""


def main() -> None:
    """Write the file."""
    folder = REPOSITORY / "Resources" / "Models"
    cards = [model_card(read_manifest(folder / f"{task.id}.safetensors")) for task in SHIPPED_TASKS]
    (REPOSITORY / "Docs").mkdir(exist_ok=True)
    (REPOSITORY / "Docs" / "builtin_models.md").write_text("\n".join([INTRODUCTION, *cards]), encoding="utf-8")


if __name__ == "__main__":
    main()
