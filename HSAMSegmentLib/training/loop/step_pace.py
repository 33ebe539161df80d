"""With minutes: steps that are short enough for the budget to be kept."""

from __future__ import annotations

from dataclasses import replace

from HSAMSegmentLib.training.data.batches import Batches
from HSAMSegmentLib.training.loop.budget import Budget

STEP_SHARE = 0.1
_QUICK_SECONDS = 1.0
_PROBES = 2


class StepPace:
    """Settles how many views a step has; with epochs that is what was asked for.

    With minutes, the first steps have a single view, since nobody knows yet how long one takes. Two of them where that
    is quick: the first pass of all is slower than the others.
    """

    def __init__(self, budget: Budget, batches: Batches) -> None:
        self._budget, self._batches = budget, batches
        self._asked = batches.draw.batch_size
        self._probes: list[float] = []
        self._is_settled = budget.minutes is None
        if not self._is_settled:
            self._take(1)

    def after_step(self) -> tuple[str, ...]:
        """Take note of how long the last step took, and settle the pace once that is known well enough.

        Returns:
            A sentence, if steps will be smaller than asked for.
        """
        if self._is_settled:
            return ()
        self._probes.append(self._budget.step_seconds)
        if len(self._probes) < _PROBES and self._probes[0] < _QUICK_SECONDS:
            return ()
        seconds = max(min(self._probes), 1e-6)
        views = min(self._asked, max(1, int(STEP_SHARE * 60.0 * self._budget.minutes / seconds)))
        self._take(views)
        self._budget.step_seconds = seconds * views
        self._is_settled = True
        if views == self._asked:
            return ()
        return (f"This network is slow on this computer: it learns from {views} slice(s) at a time.",)

    def _take(self, views: int) -> None:
        self._batches.draw = replace(self._batches.draw, batch_size=views)
