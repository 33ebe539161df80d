"""MRML nodes to plain data and back. Knows slicer and vtk, no Qt."""
