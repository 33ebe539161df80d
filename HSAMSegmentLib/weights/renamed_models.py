"""Built-in models of earlier versions: their ids of today, and where the encoders of their files are now."""

from __future__ import annotations

RENAMED_MODELS = {"abdomen-mr-t2": "abdomen-mr"}
"""Earlier id to the id of the model that took its place."""

MOVED_ENCODERS = {"9f53fc18e82c23498ab70514cb7ab4bf98405c8988aced9c75798ceed0211698": "cardiac-mr-bssfp"}
"""SHA-256 of an earlier bundle to the id of the model whose bundle holds the same encoder. Models that were fine-tuned
with that encoder refer to the earlier bundle."""
