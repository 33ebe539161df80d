"""Read scans from DICOM files: detect, group into series, place in space, decode."""
