"""All that `HSAMSegmentLogic` offers to scripts."""

from __future__ import annotations

from HSAMSegmentLib.slicer.scripting.finetuning import Finetuning
from HSAMSegmentLib.slicer.scripting.models import Models
from HSAMSegmentLib.slicer.scripting.results import Results
from HSAMSegmentLib.slicer.scripting.segmenting import Segmenting


class ScriptingLogic(Segmenting, Finetuning, Models, Results):
    """Segment, fine-tune, manage models, and go on with results; see `Docs/scripting.md`."""
