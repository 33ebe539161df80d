"""Segment: from a volume and a model to labels with volumes in mL and confidence."""
