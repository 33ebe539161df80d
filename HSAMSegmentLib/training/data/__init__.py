"""Labeled cases, their slices, sampling, augmentation, batches."""
