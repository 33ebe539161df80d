"""Record the reference results of `hsam-segment doctor --self-test`; run it after the built-in model has changed.

python Scripts/record_self_test.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.self_test import RECORD_FILE, run_self_test

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Segment and record."""
    path = REPOSITORY / "Resources" / "Models" / RECORD_FILE
    if not path.is_file():
        path.write_text('{"model": "", "dice": {}}')
    result = run_self_test(Context())
    path.write_text(json.dumps({"model": result.model_id, "dice": result.dice}, indent=1) + "\n", encoding="utf-8")
    print(f"{path.name}: {result.dice}")


if __name__ == "__main__":
    main()
