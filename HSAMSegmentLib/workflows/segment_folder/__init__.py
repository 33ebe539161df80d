"""Segment every scan of a folder or a list, each once, even if several processes share the work."""
