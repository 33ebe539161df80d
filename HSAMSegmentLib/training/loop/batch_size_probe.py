"""With a budget in minutes: a batch size whose steps are short enough."""

from __future__ import annotations

from dataclasses import replace

from HSAMSegmentLib.training.data.batches import Batches
from HSAMSegmentLib.training.loop.budget import Budget

STEP_SHARE = 0.1
_QUICK_SECONDS = 1.0
_PROBES = 2


class BatchSizeProbe:
    """Chooses the batch size; with epochs it is the requested one.

    With minutes, the first steps have a batch size of one, to measure them: one step, or two if the first is quick,
    since the first pass is slower than the others.
    """

    def __init__(self, budget: Budget, batches: Batches) -> None:
        self._budget, self._batches = budget, batches
        self._requested = batches.training_set.batch_size
        self._probes: list[float] = []
        self._is_settled = budget.minutes is None
        if not self._is_settled:
            self._set_batch_size(1)

    def after_step(self) -> tuple[str, ...]:
        """Record the duration of the last step, and choose the batch size once that is enough.

        Returns:
            A sentence if the batch size is reduced.
        """
        minutes = self._budget.minutes
        if self._is_settled or minutes is None:
            return ()
        self._probes.append(self._budget.step_seconds)
        if len(self._probes) < _PROBES and self._probes[0] < _QUICK_SECONDS:
            return ()
        seconds = max(min(self._probes), 1e-6)
        views = min(self._requested, max(1, int(STEP_SHARE * 60.0 * minutes / seconds)))
        self._set_batch_size(views)
        self._budget.step_seconds = seconds * views
        self._is_settled = True
        if views == self._requested:
            return ()
        return (f"This network is slow on this computer: the batch size is reduced to {views}.",)

    def _set_batch_size(self, views: int) -> None:
        self._batches.training_set = replace(self._batches.training_set, batch_size=views)
