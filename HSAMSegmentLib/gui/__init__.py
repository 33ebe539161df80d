"""The Qt panels. Knows qt and slicer, no torch."""
