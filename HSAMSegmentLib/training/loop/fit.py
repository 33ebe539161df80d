"""The training loop, and the mechanism that lets a cancel interrupt a forward or backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch.utils._python_dispatch import TorchDispatchMode

from HSAMSegmentLib.runtime.progress import CancelToken


class Validation(Protocol):
    """Decides when to validate and when to stop early."""

    @property
    def is_due(self) -> bool:
        """Whether to validate before the next step."""

    @property
    def has_converged(self) -> bool:
        """Whether further steps are unlikely to help."""

    def validate(self) -> None:
        """Validate the current weights."""


def fit(step: Callable[[], None], is_done: Callable[[], bool], validation: Validation | None = None) -> bool:
    """Take steps, validating when due, until the training is done or has converged.

    Args:
        step: takes one step.
        is_done: whether the budget is used up.
        validation: when and how to validate; None to train without.

    Returns:
        Whether training ended early because it converged.
    """
    while True:
        if validation is not None and validation.is_due:
            validation.validate()
            if validation.has_converged:
                return True
        if is_done():
            return False
        step()


class CancellableComputation(TorchDispatchMode):
    """Within the context, every operation of this thread first checks for a cancel, including gradients.

    On a CPU a training step of a large network takes many seconds, most of them in the backward pass, where no other
    Python code runs. Only for work that may stop anywhere: in-place changes may be left incomplete.
    """

    def __init__(self, cancel: CancelToken) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cancel = cancel

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch's own hook: nothing here is compiled, so its compiler (seconds of imports) need not be loaded."""
        return False

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation unless cancelled."""
        self._cancel.raise_if_cancelled()
        return func(*args, **(kwargs or {}))
