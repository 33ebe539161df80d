"""Segmentation nodes: label images, layers, surfaces, comparison."""
