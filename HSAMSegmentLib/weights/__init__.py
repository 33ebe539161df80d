"""Files of weights: bundles with their manifests, the catalog, and the store."""
