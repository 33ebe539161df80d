"""Export segmentations for other programs: DICOM Segmentations, RT Structure Sets, and surfaces."""
