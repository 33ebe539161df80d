"""Cancelling in the middle of a computation, forward or backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from HSAMSegmentLib.runtime.progress import CancelToken


class CancellableComputation(TorchDispatchMode):
    """While entered, every operation of this thread first looks whether the work was cancelled, gradients included.

    On a CPU a training step of a large network takes many seconds, and most of that is its backward pass, where no code
    of ours runs otherwise. Only for work that may stop anywhere: what is changed in place is left half-changed.
    """

    def __init__(self, cancel: CancelToken) -> None:
        super().__init__()
        self._cancel = cancel

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch's own hook: nothing here is compiled, so its compiler (seconds of imports) need not be loaded."""
        return False

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operation unless cancelled."""
        self._cancel.raise_if_cancelled()
        return func(*args, **(kwargs or {}))
