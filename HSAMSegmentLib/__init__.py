"""HSAMSegment: prompt-free organ segmentation with SAM, H-SAM and AutoSAM.

    import HSAMSegmentLib as hsam

    result = hsam.segment("scan.nii.gz", model="abdomen-mr")
    result["liver"].volume_ml
    result.save("organs.seg.nrrd")
    hsam.finetune([("scan.nii.gz", "labels.seg.nrrd")], minutes=10).save("mine.safetensors")

Importing this package or a subpackage does not import torch, because Slicer loads the module at startup and torch may
not be installed. Modules that compute import torch at the first call. The import does bound how long torch's threads
spin (see `runtime.threads`): OpenMP reads that setting when torch is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from HSAMSegmentLib.runtime.threads import limit_spinning

__version__ = "0.3.0.dev0"

limit_spinning()

if TYPE_CHECKING:
    from HSAMSegmentLib.api import (
        evaluate,
        finetune,
        list_models,
        load_model,
        measure,
        radiomics,
        read_segmentation,
        read_statistics,
        read_volume,
        segment,
    )
    from HSAMSegmentLib.api_results import Evaluation, FinetunedModel
    from HSAMSegmentLib.errors import CancelledError, HSAMSegmentError
    from HSAMSegmentLib.images.geometry import Geometry
    from HSAMSegmentLib.images.volume import Volume
    from HSAMSegmentLib.inference.result import SegmentationResult
    from HSAMSegmentLib.labels.segmentation import Segmentation
    from HSAMSegmentLib.runtime.progress import CancelToken, Progress

__all__ = [
    "CancelToken",
    "CancelledError",
    "Evaluation",
    "FinetunedModel",
    "Geometry",
    "HSAMSegmentError",
    "Progress",
    "Segmentation",
    "SegmentationResult",
    "Volume",
    "__version__",
    "evaluate",
    "finetune",
    "list_models",
    "load_model",
    "measure",
    "radiomics",
    "read_segmentation",
    "read_statistics",
    "read_volume",
    "segment",
]

_HOMES = {
    "Evaluation": "api_results",
    "FinetunedModel": "api_results",
    "CancelToken": "runtime.progress",
    "CancelledError": "errors",
    "Geometry": "images.geometry",
    "HSAMSegmentError": "errors",
    "Progress": "runtime.progress",
    "Segmentation": "labels.segmentation",
    "SegmentationResult": "inference.result",
    "Volume": "images.volume",
}
"""Modules of the public classes; the functions are in `api`."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
