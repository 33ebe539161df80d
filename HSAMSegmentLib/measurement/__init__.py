"""Measure structures: size, position, intensity, and unusual findings."""
