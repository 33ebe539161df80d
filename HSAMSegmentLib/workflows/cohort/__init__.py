"""Process many scans: claims, results, and Dask workers, local or on a cluster."""
