"""Segment a volume with a model: labels, volumes in mL and confidence."""
