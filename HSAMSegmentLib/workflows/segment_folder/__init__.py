"""Segment every scan of a folder or a list, each once, whoever else works on it."""
