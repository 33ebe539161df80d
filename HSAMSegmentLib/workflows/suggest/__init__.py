"""Suggest which scans of a folder to label next."""
