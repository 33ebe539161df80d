"""Many scans: who works on which, what became of them, and the workers of a Dask cluster, here or elsewhere."""
