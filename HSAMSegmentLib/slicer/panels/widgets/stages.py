"""What a job is doing, in the user's language: jobs run in another process, which has no translation."""

from __future__ import annotations

from slicer.i18n import tr as _


def shown_stage(stage: str) -> str:
    """The translated text of a stage; a stage with a name in it (of a file, of a scan) stays as it is."""
    known = {
        "Bringing both to one grid": _("Bringing both to one grid"),
        "Building the network": _("Building the network"),
        "Comparing": _("Comparing"),
        "Computing surfaces": _("Computing surfaces"),
        "Cutting the slices": _("Cutting the slices"),
        "Done": _("Done"),
        "Done before": _("Done before"),
        "Encoding the slices": _("Encoding the slices"),
        "Handing over the scan": _("Handing over the scan"),
        "Learning": _("Learning"),
        "Loading the model": _("Loading the model"),
        "Looking at the scans": _("Looking at the scans"),
        "Preparing the volume": _("Preparing the volume"),
        "Reading the labels": _("Reading the labels"),
        "Reading the results": _("Reading the results"),
        "Reading the scan": _("Reading the scan"),
        "Reading the scans": _("Reading the scans"),
        "Segmenting slices": _("Segmenting slices"),
        "Starting": _("Starting"),
        "Tidying the segmentation": _("Tidying the segmentation"),
        "Trying the devices": _("Trying the devices"),
        "Waiting": _("Waiting"),
        "Waiting for another run": _("Waiting for another run"),
        "Waiting for the scheduler": _("Waiting for the scheduler"),
        "Writing the model": _("Writing the model"),
        "Writing the results": _("Writing the results"),
    }
    return known.get(stage, stage)
