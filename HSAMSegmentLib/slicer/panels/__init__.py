"""The Qt panels. They know qt and slicer, not torch."""
