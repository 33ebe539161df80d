"""The training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Validation(Protocol):
    """Decides when to validate and when to stop early."""

    @property
    def is_due(self) -> bool:
        """Whether to validate before the next step."""

    @property
    def has_converged(self) -> bool:
        """Whether further steps are not worth their time."""

    def validate(self) -> None:
        """Validate the present weights."""


def fit(step: Callable[[], None], is_done: Callable[[], bool], validation: Validation | None = None) -> bool:
    """Take steps, and validate when it is time to, until the training is done or has converged.

    Args:
        step: takes one step.
        is_done: whether the budget is used up.
        validation: None to train without.

    Returns:
        Whether it ended early because it has converged.
    """
    while True:
        if validation is not None and validation.is_due:
            validation.validate()
            if validation.has_converged:
                return True
        if is_done():
            return False
        step()
