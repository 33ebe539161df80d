"""Numbers on the command line: checked, and refused with a sentence."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def checked(kind: Callable[[str], float], lowest: float, description: str) -> Callable[[str], float]:
    """A type for an argument: a finite number from `lowest` on; `description` completes "'x' is not ..."."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not {description}") from None
        if not lowest <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"'{text}' is not {description}")
        return value

    return parse
