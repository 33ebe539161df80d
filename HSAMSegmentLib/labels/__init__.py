"""Label sets, terminology, and segmentations in files."""
