"""MRML nodes to plain data and back. Knows slicer and vtk, not Qt."""
