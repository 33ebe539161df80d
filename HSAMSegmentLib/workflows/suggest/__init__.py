"""Which scans of a folder are worth labeling next."""
