"""Segment many scans on the workers of a Dask cluster, of this computer or of others."""
