"""The engine of HSAMSegment: prompt-free organ segmentation with SAM, H-SAM and AutoSAM.

Importing this package, or any of its subpackages, imports no torch: Slicer starts with the module,
and torch may not be installed. The modules that compute import torch; they are imported when a job starts.
"""

from __future__ import annotations

__version__ = "0.1.0"
