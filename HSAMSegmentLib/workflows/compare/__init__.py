"""Compare two segmentations."""
