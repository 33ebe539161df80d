"""Widgets and texts that several tabs use."""
