"""Weights files: bundles with their manifests, the catalog, and the store."""
