"""Run a network over slices, managing device, precision, batch size and out-of-memory errors."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from HSAMSegmentLib.errors import CheckpointError, DeviceError
from HSAMSegmentLib.inference.confidence import SliceEvidence, read_logits, slice_evidence
from HSAMSegmentLib.inference.test_time_augmentation import mean_over_augmentations
from HSAMSegmentLib.inference.through_plane_smoothing import ThroughPlaneSmoothing
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.lora import AdaptedQkv
from HSAMSegmentLib.preprocess.network_input import NetworkInput, SliceFraming, SliceWindow
from HSAMSegmentLib.preprocess.rules import PLAIN_VIEW, View
from HSAMSegmentLib.runtime import devices
from HSAMSegmentLib.runtime.progress import CancelToken

Network = TypeVar("Network", bound=nn.Module)

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
"""Norms keep float32: they have few parameters and accumulate sums."""

Found = TypeVar("Found")

logger = logging.getLogger(__name__)

_LARGEST_BATCH = 32
_MEMORY_PART = 0.6
"""Fraction of an accelerator's free memory that a batch may take."""

_CPU_PIXELS = 256 * 256 * 6
"""Pixels of network input per forward pass on a CPU; larger batches cost memory and save no time."""


def half_network(network: Network, dtype: torch.dtype) -> Network:
    """Copy a network with half-precision parameters and merged adapters, to run under autocast.

    Networks of other planes are left out. Buffers (positions, index tables, running means) and the parameters of norms
    keep their precision.

    Args:
        network: a segmentation network, or a part of one; left unchanged.
        dtype: bfloat16 or float16.
    """
    replaced: dict[int, object] = {}
    if hasattr(network, "other_planes"):
        # Other planes have predictors, and copies, of their own.
        replaced[id(network.other_planes)] = nn.ModuleDict()
    for module in network.modules():
        if isinstance(module, AdaptedQkv):
            folded = module.merged()
            replaced[id(module)] = folded
            folded.to(dtype)
        elif not isinstance(module, _NORMS):
            for parameter in module.parameters(recurse=False):
                replaced[id(parameter)] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
    # deepcopy reuses whatever its memo holds, so no second float32 copy is made.
    return copy.deepcopy(network, replaced)


@dataclass(frozen=True)
class BatchRules:
    """Rules for a batch.

    Attributes:
        last_stage_only: take labels from the last stage; the first one then serves confidence only.
        mirrored: average with the prediction for the mirrored slices.
        window: the part of the slices to predict.
        views: test-time augmentation views of each input.
        mean_with_planes: averages the logits [n, K + 1, rows, cols] of the slices from a given index on with those of
            other planes.
    """

    last_stage_only: bool
    mirrored: bool
    window: SliceWindow
    views: tuple[View, ...] = (PLAIN_VIEW,)
    mean_with_planes: Callable[[Tensor, int], Tensor] = lambda logits, first: logits

    @property
    def passes(self) -> int:
        """Forward passes per input."""
        return len(self.views) * (2 if self.mirrored else 1)


class SlicePredictor:
    """Predicts labels and confidence maps of slices, batch by batch.

    When memory runs out the batch size is halved; if a single input does not fit on an accelerator, the rest runs
    on the CPU. Both are recorded in `warnings`.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        *,
        device: str,
        precision: str,
        batch_size: int | None,
        smoothing: ThroughPlaneSmoothing,
    ) -> None:
        """Move the network to the device.

        Args:
            network: moved and put into evaluation mode.
            device: a working device.
            precision: "auto", "full" or "mixed".
            batch_size: network inputs per forward pass; None to determine it.
            neighbors: through-plane smoothing of the logits.
        """
        self.warnings: list[str] = []
        self._smoothing = smoothing
        self._network = network.eval()
        self._wanted_precision = precision
        self._wanted_batch = batch_size
        self._move(device)

    @property
    def precision(self) -> str:
        """ "full" or "mixed (...)" for the report."""
        return "full" if self._dtype is None else f"mixed ({_name_of(self._dtype)})"

    @property
    def precision_reason(self) -> str:
        """A sentence for the user on why this precision is used."""
        return self._precision.reason

    @property
    def _dtype(self) -> torch.dtype | None:
        return self._precision.dtype

    def predict(
        self, source: NetworkInput, framing: SliceFraming, rules: BatchRules, first: int, last: int
    ) -> SliceEvidence:
        """Label slices from `first` on, up to `last` (excluded): as many as fit into a batch, at least one.

        Raises:
            DeviceError: if one slice does not fit in memory even on the CPU.
            CheckpointError: if the network's output is NaN.
        """

        def evidence(stages: list[Tensor]) -> SliceEvidence:
            read = rules.mean_with_planes(read_logits(stages, last_only=rules.last_stage_only), first)
            return slice_evidence(stages, read=read)

        return self._with_room(source, framing, rules, first, last, evidence)

    def logits(self, source: NetworkInput, framing: SliceFraming, rules: BatchRules, first: int, last: int) -> Tensor:
        """Logits [n, K + 1, rows, cols] that labels are read from, on the CPU, for the slices of `predict`.

        Raises:
            DeviceError, CheckpointError: as `predict`.
        """
        return self._with_room(
            source,
            framing,
            rules,
            first,
            last,
            lambda stages: read_logits(stages, last_only=rules.last_stage_only).cpu(),
        )

    def _with_room(
        self,
        source: NetworkInput,
        framing: SliceFraming,
        rules: BatchRules,
        first: int,
        last: int,
        use: Callable[[list[Tensor]], Found],
    ) -> Found:
        """Process the logits of as many slices as fit into memory."""

        def compute(start: int, stop: int) -> list[Tensor]:
            return self._slice_logits(source, framing, rules, start, stop)

        while True:
            stop = min(first + max(1, self.batch_size // framing.tile_count), last)
            try:
                with torch.inference_mode():
                    found = use(self._smoothing.stages(compute, first, stop))
                if not self._measured:
                    self._enlarge_batch()
                return found
            except (RuntimeError, MemoryError) as error:
                if not devices.is_out_of_memory(error):
                    raise
                logger.info("Out of memory on %s at batch size %d: %s", self.device, self.batch_size, error)
                self._smoothing.forget()
            self._step_down(min(self.batch_size, (stop - first) * framing.tile_count))

    def _slice_logits(
        self, source: NetworkInput, framing: SliceFraming, rules: BatchRules, first: int, last: int
    ) -> list[Tensor]:
        images = source.batch(first, last, self.device)
        parts = [self._stages(part, rules) for part in images.split(self.batch_size)]
        return [framing.logits(torch.cat(stage), rules.window) for stage in zip(*parts)]

    def _stages(self, images: Tensor, rules: BatchRules) -> list[Tensor]:
        stages = mean_over_augmentations(lambda view: self._one_view(view, rules), images, rules.views)
        if bool(torch.stack([torch.isfinite(stage).all() for stage in stages]).all()):
            return stages
        if self._dtype is None:
            raise CheckpointError(
                "The network's output is not a number. Its weights are damaged or were trained with other settings; "
                "get the model again."
            )
        self._compute_in(devices.Precision(None, "float32: half precision overflowed in this network."))
        self.warnings.append("Half precision overflowed in this network, so it ran in full precision.")
        return self._stages(images, rules)

    def _one_view(self, images: Tensor, rules: BatchRules) -> list[Tensor]:
        stages = self._forward(images)
        if not rules.mirrored:
            return stages
        mirrored = self._forward(images.flip(-1))
        return [(stage + other.flip(-1)) / 2.0 for stage, other in zip(stages, mirrored)]

    def _forward(self, images: Tensor) -> list[Tensor]:
        half = nullcontext() if self._dtype is None else torch.autocast(images.device.type, dtype=self._dtype)
        with half:
            stages = self._prepared(images.contiguous(memory_format=torch.channels_last)).stages
        return [stage.float() for stage in stages]

    def _move(self, device: str) -> None:
        self.device = device
        self._network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compute_in(self._chosen_precision(device))
        self._measured = self._wanted_batch is not None or not device.startswith("cuda")
        self.batch_size = self._wanted_batch or self._first_batch_size()
        if not self._measured:
            torch.cuda.reset_peak_memory_stats(torch.device(device))
            self._used_before = torch.cuda.memory_allocated(torch.device(device))

    def _compute_in(self, precision: devices.Precision) -> None:
        self._precision = precision
        dtype = precision.dtype if self.device == "cpu" else None
        self._prepared = self._network if dtype is None else half_network(self._network, dtype)

    def _chosen_precision(self, device: str) -> devices.Precision:
        if self._wanted_precision == "auto":
            return devices.default_precision(device)
        if self._wanted_precision == "full":
            return devices.Precision(None, "float32: full precision was asked for.")
        half = devices.half_precision(device)
        return devices.Precision(half, f"{_name_of(half)}: mixed precision was asked for.")

    def _first_batch_size(self) -> int:
        if self.device == "cpu":
            return max(1, _CPU_PIXELS // self._network.image_size**2)
        return 1 if self.device.startswith("cuda") else 2

    def _enlarge_batch(self) -> None:
        """After the first input on CUDA, set the batch size from its peak memory."""
        peak = torch.cuda.max_memory_allocated(torch.device(self.device)) - self._used_before
        fitting = int(_MEMORY_PART * devices.free_memory(self.device) / max(peak, 1))
        self.batch_size = min(max(fitting, 1), _LARGEST_BATCH)
        self._measured = True

    def _step_down(self, failed_batch: int) -> None:
        devices.release_memory(self.device)
        self._measured = True
        if failed_batch > 1:
            self.batch_size = failed_batch // 2
            self.warnings.append(
                f"Memory ran out on {self.device} with {failed_batch} slices at a time; went on with {self.batch_size}."
            )
        elif self.device != "cpu":
            self.warnings.append(
                f"Memory ran out on {self.device} with a single slice; went on on the CPU, which is slower."
            )
            self._wanted_batch = 1
            self._move("cpu")
            devices.release_memory("cpu")
        else:
            raise DeviceError(
                "Not enough memory to segment even a single slice. Close other programs, choose a smaller model, or "
                "use a computer with more memory."
            )


class CancellableOperations(TorchFunctionMode):
    """While active, every torch operation of this thread first checks for a cancel.

    On a CPU one slice takes seconds and a single block of a large encoder more than one, so checks between modules
    would come too late. Only for work that may stop anywhere: in-place changes are left incomplete.
    """

    def __init__(self, cancel: CancelToken) -> None:
        super().__init__()
        self._cancel = cancel

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation unless cancelled."""
        self._cancel.raise_if_cancelled()
        return func(*args, **(kwargs or {}))


@contextmanager
def cancellable(network: nn.Module, cancel: CancelToken) -> Iterator[None]:
    """Make a running forward pass stop at the next module after a cancel, and nothing else."""

    def check(module: nn.Module, inputs: Any) -> None:
        cancel.raise_if_cancelled()

    handles = [module.register_forward_pre_hook(check) for module in network.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).replace("torch.", "")


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Limit torch to this many CPU threads within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
