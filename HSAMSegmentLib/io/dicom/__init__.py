"""Scans from DICOM files: recognized, grouped into series, placed in space, decoded."""
