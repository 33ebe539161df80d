"""The budget of a training: minutes, which it keeps to, or epochs. Does not import torch."""

from __future__ import annotations

import time
from collections.abc import Callable

from HSAMSegmentLib.errors import RequestError

DEFAULT_MINUTES = 10.0
ENCODING_SHARE = 0.4
HELD_ENCODING_SHARE = 0.1
LATE_SHARE = 0.05


class Budget:
    """Tracks how much of a training is done, and when it ends.

    With minutes, everything since the start counts: reading, encoding, validating, and the time reserved for the last
    validation and for writing the model. With epochs, only steps count, so the same seed gives the same model.
    """

    def __init__(
        self,
        *,
        minutes: float | None = None,
        epochs: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            minutes: duration of the whole job; `DEFAULT_MINUTES` if neither is given.
            epochs: passes over the slices instead.
            clock: returns seconds.

        Raises:
            RequestError: if both are given or one is not positive.
        """
        if minutes is not None and epochs is not None:
            raise RequestError("Give either minutes or epochs, not both.")
        if (minutes is not None and minutes <= 0) or (epochs is not None and epochs <= 0):
            raise RequestError("A training needs a positive number of minutes or epochs.")
        self.epochs = epochs
        self.minutes = None if epochs is not None else (minutes if minutes is not None else DEFAULT_MINUTES)
        self._clock = clock
        self._started = clock()
        self._earlier = 0.0
        self._total_steps = 0
        self._steps = 0
        self.validation_seconds = 0.0
        self.writing_seconds = 0.5
        self.step_seconds = 0.0

    @property
    def reserve_seconds(self) -> float:
        """Seconds reserved for the last validation and for writing the model."""
        return 1.1 * self.validation_seconds + self.writing_seconds

    @property
    def seconds(self) -> float:
        """Seconds used, including interrupted runs."""
        return self._earlier + self._clock() - self._started

    def set_steps_per_epoch(self, steps: int) -> None:
        """Set the steps of one epoch."""
        self._total_steps = (self.epochs or 0) * max(steps, 1)

    def resume(self, seconds: float, steps: int) -> None:
        """Add the time and the steps of earlier runs."""
        self._earlier, self._steps = seconds, steps

    def advance(self, seconds: float = 0.0) -> None:
        """Count a step and its duration."""
        self._steps += 1
        self.step_seconds = seconds

    @property
    def fraction(self) -> float:
        """Completed part of the training, 0 to 1."""
        if self.minutes is None:
            return min(1.0, self._steps / max(self._total_steps, 1))
        available = max(60.0 * self.minutes - self.reserve_seconds, 1e-6)
        return min(1.0, self.seconds / available)

    @property
    def is_used_up(self) -> bool:
        """Whether to end the training; with minutes also if the next step would overrun the budget by too much.

        Too much is more than half of the step or, for long steps, more than a twentieth of the budget.
        """
        if self.minutes is None:
            return self.fraction >= 1.0
        too_late = max(0.5 * self.step_seconds, self.step_seconds - LATE_SHARE * 60.0 * self.minutes)
        return self.seconds + too_late >= 60.0 * self.minutes - self.reserve_seconds

    @property
    def eta_seconds(self) -> float | None:
        """Estimated remaining seconds; None while unknown."""
        if self.minutes is not None:
            return max(60.0 * self.minutes - self.seconds, 0.0)
        if self._steps < 3:
            return None
        spent = self._clock() - self._started
        return spent / self._steps * max(self._total_steps - self._steps, 0)


class BudgetedEncoding:
    """Limits the feature cache to one view per epoch, or to as many as leave most of the minutes for training."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def enough(self, views: float) -> bool:
        """See `features.cached_features.EncodingLimits`."""
        if self._budget.minutes is None:
            return views >= (self._budget.epochs or 1)
        return self._budget.fraction > ENCODING_SHARE

    def views(self, seconds: float) -> float:
        """See `features.cached_features.EncodingLimits`."""
        if self._budget.minutes is None:
            return self._budget.epochs or 1
        return 1.5 * ENCODING_SHARE * 60.0 * self._budget.minutes / max(seconds, 1e-6)

    def validation_inputs(self, seconds: float) -> float:
        """See `features.cached_features.EncodingLimits`."""
        if self._budget.minutes is None:
            return float("inf")
        return HELD_ENCODING_SHARE * 60.0 * self._budget.minutes / max(seconds, 1e-6)
