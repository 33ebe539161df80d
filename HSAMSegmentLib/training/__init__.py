"""Teach: from labelled cases to a bundle."""
