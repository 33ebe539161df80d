"""Segment one scan, or every scan of a folder."""
