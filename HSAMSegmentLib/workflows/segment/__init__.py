"""Segment one scan."""
