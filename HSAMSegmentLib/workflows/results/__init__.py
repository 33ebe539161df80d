"""Finished results, read again: statistics and the report of a folder."""
