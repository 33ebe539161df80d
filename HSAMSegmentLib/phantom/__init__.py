"""A synthetic abdomen with its ground truth, for tests and first runs."""
