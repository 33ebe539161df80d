"""Files of weights: bundles with their manifests, official checkpoints, the catalog, the store and the downloader."""
