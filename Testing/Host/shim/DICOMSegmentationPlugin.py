"""Stand-in for Slicer's exporter of DICOM Segmentations: refuses what the real one refuses, writes what it was told."""

from __future__ import annotations

import json
from pathlib import Path

import slicer
import vtk


class DICOMSegmentationExporter:
    """Needs an algorithm's name, codes and the images in the DICOM database; asks where segments are empty."""

    def __init__(self, segmentationNode, contentCreatorName=None):
        self.segmentationNode = segmentationNode

    def cleanup(self):
        """Nothing temporary is made here."""

    def export(self, outputDirectory, segFileName, metadata, segmentIDs=None, skipEmpty=False):
        node = self.segmentationNode
        volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        instances = volume.GetAttribute("DICOM.instanceUIDs").split()
        missing = [uid for uid in instances if uid.startswith("missing")]
        if missing:
            raise ValueError(f"Referenced volume files were not found (missing {len(missing)} of {len(instances)}).")
        segments = [self._segment(node.GetSegmentation().GetSegment(item)) for item in segmentIDs]
        data = {**metadata, "images": instances, "segments": segments}
        (Path(outputDirectory) / segFileName).write_text(json.dumps(data), encoding="utf-8")
        return True

    def _segment(self, segment):
        tags = {}
        for key in ("DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName", "TerminologyEntry"):
            value = vtk.mutable("")
            segment.GetTag(key, value)
            tags[key] = str(value)
        if tags["DICOM.SegmentAlgorithmType"] not in ("", "MANUAL") and not tags["DICOM.SegmentAlgorithmName"]:
            raise ValueError(f"Segment {segment.GetName()} has missing SegmentAlgorithmName")
        entry = slicer.vtkSlicerTerminologyEntry()
        slicer.modules.terminologies.logic().DeserializeTerminologyEntry(tags["TerminologyEntry"], entry)
        if entry.GetTypeObject() is None or not entry.GetTypeObject().GetCodeValue():
            raise ValueError(f"Segment {segment.GetName()} has missing attributes. Make sure to set terminology.")
        kind = tags["DICOM.SegmentAlgorithmType"] or "MANUAL"
        return {"label": segment.GetName(), "code": entry.GetTypeObject().GetCodeValue(), "algorithm": kind, **tags}
