"""Teach: from labeled cases to a bundle."""
