"""Everything that knows 3D Slicer."""
