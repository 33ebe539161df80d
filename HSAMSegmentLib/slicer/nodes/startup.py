"""What the module tells other modules when the application has started: sample data and terminologies."""

from __future__ import annotations

import logging

import slicer

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.weights.resources import resource_folder

logger = logging.getLogger(__name__)

SAMPLE_CATEGORY = "HSAM Segment"
# A test scan of the TotalSegmentator repository (Apache-2.0), at a fixed commit.
_TOTALSEGMENTATOR = "https://github.com/wasserth/TotalSegmentator/raw/0e65a448d557382b1e925276212b3bec7f5aff83"
SAMPLES = (
    {
        "sampleName": "HSAM abdomen CT",
        "uris": f"{_TOTALSEGMENTATOR}/tests/reference_files/example_ct.nii.gz",
        "fileNames": "hsam-abdomen-ct.nii.gz",
        "nodeNames": "Abdomen CT",
        "checksums": "SHA256:dbd3ae6d614d1d7ef3a46925c30c70038ed52da6b37fdd6afdc7b9b71387e3e1",
    },
)


def register_sample_data(icon: str) -> None:
    """Offer a scan to try the module with in the Sample Data module."""
    import SampleData

    for sample in SAMPLES:
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=SAMPLE_CATEGORY, thumbnailFileName=icon, **sample
        )


def register_terminology() -> None:
    """Load our terminologies, so that the Segment Editor knows the codes of our organs by name."""
    logic = slicer.modules.terminologies.logic()
    try:
        files = sorted((resource_folder() / "Terminologies").glob("*.term.json"))
    except HSAMSegmentError as error:
        logger.error("%s", error)
        return
    for file in files:
        logic.LoadTerminologyFromFile(str(file))
