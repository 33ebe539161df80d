"""Volumes, their geometry, and their slices in a canonical orientation."""
