"""Which kinds of DICOM objects are scans, by SOP class and by modality."""

from __future__ import annotations

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"

# Kinds of objects that describe a scan and are none: segmentations, presentation states, radiotherapy objects, reports,
# key objects, registrations, fiducials, real-world values, documents, plans.
_NO_SCAN_MODALITIES = {
    "SEG", "PR", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "SR", "KO", "REG", "FID", "RWV", "DOC", "PLAN", "M3D",
    "STAIN", "ANN", "AU", "ECG", "HD", "EPS", "SMR",
}  # fmt: skip

# The same by their SOP classes, for a file whose modality says otherwise (a SEG is often written with that of its
# scan). A number with a point at its end stands for all classes below it.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_SCAN_CLASSES = {
    "SEG": (f"{_STORAGE}66.4", f"{_STORAGE}66.5", f"{_STORAGE}66.7", f"{_STORAGE}66.8"),
    "REG": (f"{_STORAGE}66.1", f"{_STORAGE}66.3"),
    "FID": (f"{_STORAGE}66.2", f"{_STORAGE}66.6"),
    "raw data": (f"{_STORAGE}66",),
    "RWV": (f"{_STORAGE}67",),
    "RTDOSE": (f"{_STORAGE}481.2",),
    "RTSTRUCT": (f"{_STORAGE}481.3",),
    "RTPLAN": (f"{_STORAGE}481.5", f"{_STORAGE}481.8"),
    "RTRECORD": (f"{_STORAGE}481.4", f"{_STORAGE}481.6", f"{_STORAGE}481.7", f"{_STORAGE}481.9"),
    "PR": (f"{_STORAGE}11.",),
    "KO": (f"{_STORAGE}88.59",),
    "SR": (f"{_STORAGE}88.",),
    "DOC": (f"{_STORAGE}104.",),
    "wave form": (f"{_STORAGE}9.",),
    "spectroscopy": (f"{_STORAGE}4.2",),
    "ANN": (f"{_STORAGE}91.",),
    "hanging protocol": ("1.2.840.10008.5.1.4.38.",),
    "index of a disc": (MEDIA_DIRECTORY,),
}


def is_scan_class(object_class: str, modality: str) -> bool:
    """Whether objects of this SOP class and modality are images of a patient."""
    return modality not in _NO_SCAN_MODALITIES and not _kind_by_class(object_class)


def kind_name(object_class: str, modality: str) -> str:
    """What to call such an object: its kind by SOP class, else its modality."""
    return _kind_by_class(object_class) or modality or "unknown"


def _kind_by_class(object_class: str) -> str:
    for kind, classes in _NO_SCAN_CLASSES.items():
        if any(object_class == name or (name.endswith(".") and object_class.startswith(name)) for name in classes):
            return kind
    return ""
