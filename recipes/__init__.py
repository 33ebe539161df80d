"""Recipes for training and exporting the built-in models. Not installed with the extension."""
