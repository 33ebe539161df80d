"""Fine-tune a model on labeled scans, from the files to a bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import torch

from HSAMSegmentLib.errors import CancelledError, OutputError, TrainingError
from HSAMSegmentLib.runtime.progress import CancelToken, ProgressCallback, ignore_progress
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.batches import Batches, LiveBatches
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.export import export
from HSAMSegmentLib.training.features.adaptation import FULL, SplitNetwork
from HSAMSegmentLib.training.features.cached_features import (
    NOTE_SECONDS,
    CachedFeatureBatches,
    CachedFeatures,
    CacheOptions,
)
from HSAMSegmentLib.training.features.feature_cache import CacheOwner
from HSAMSegmentLib.training.finetune_state import FinetuneState
from HSAMSegmentLib.training.loop.budget import BudgetedEncoding
from HSAMSegmentLib.training.loop.fit import CancellableComputation, fit
from HSAMSegmentLib.training.loop.trainer import NonFiniteLossError
from HSAMSegmentLib.training.preparation import prepare
from HSAMSegmentLib.training.request import FinetuneEvents, FinetuneRequest, FinetuneResult, ignore_events
from HSAMSegmentLib.training.result import make_result
from HSAMSegmentLib.training.second_plane import FIRST_PLANE_SHARE, describe_second_plane

VALIDATED_ON_PART = "This network is slow on this computer: Dice was measured on a part of the held-out slices."


def finetune(
    request: FinetuneRequest,
    *,
    cases: Sequence[Case] | None = None,
    validation: Sequence[Case] | None = None,
    progress: ProgressCallback = ignore_progress,
    events: FinetuneEvents = ignore_events,
    cancel: CancelToken | None = None,
) -> FinetuneResult:
    """Fine-tune a model and save it. Under `torchrun`, several processes train it together, each with its own batch.

    Args:
        request: the request.
        cases: training cases in memory, instead of the files of the request.
        validation: validation cases in memory, instead of the files of the request.
        progress: called with progress reports.
        events: called with every `ValidationMetrics` and `ValidationPreview`.
        cancel: stops early; the best weights so far are saved.

    Returns:
        The result; `stopped` says why the training ended.

    Raises:
        TrainingError: if no labels can be used, or if the loss is not finite from the first step on.
        VolumeError: if a scan cannot be read.
        CheckpointError: if the starting model cannot be used.
        OutputError: if an output exists or cannot be written; the training state is kept, so `resume` can try again.
        CancelledError: if canceled before the first step.
    """
    with ranks.joined(request.device) as device:
        run = prepare(
            replace(request, device=device),
            cases=cases,
            validation=validation,
            progress=progress if ranks.is_first() else ignore_progress,
            events=events if ranks.is_first() else ignore_events,
            cancel=cancel,
        )
        ranks.separate_noise(run.steps)
        with closing(run):
            return train(run)


def train(run: FinetuneState) -> FinetuneResult:
    """Train until the budget is used up or the Dice stops rising, then write the best weights.

    Raises:
        HSAMSegmentError: as `finetune`.
    """
    stopped = "budget"
    try:
        if run.second_plane is None and _train_first_network(run):
            stopped = "no more progress"
        if run.has_second_plane:
            _train_second_network(run)
    except CancelledError:
        _keep_newest_if_none(run)
        run.checkpointer.save()
        if not _has_kept(run):
            raise CancelledError("Cancelled before the first step: there is no model to keep.") from None
        stopped = "cancelled"
    except NonFiniteLossError as error:
        _keep_newest_if_none(run)
        if not _has_kept(run):
            raise TrainingError(str(error)) from error
        run.note([f"{error} The best weights before that are kept."])
        stopped = "loss not a number"
    return _finish(run, stopped)


def _train_first_network(run: FinetuneState) -> bool:
    """Train the network that the setup starts with; return whether it converged before the end of the budget."""
    trainer, validator = run.trainer, run.validator
    with closing(_batches(run)) as batches:
        if validator.begin():
            run.advise([VALIDATED_ON_PART])
        has_converged = fit(
            run.stepper(trainer, batches, "Learning"), lambda: trainer.steps > 0 and _is_first_done(run), validator
        )
        if not has_converged and not validator.is_up_to_date:
            validator.validate()
    if trainer.best is None:
        raise NonFiniteLossError("The weights are not finite, so there is no model to keep. Try a lower rate.")
    return has_converged


def _is_first_done(run: FinetuneState) -> bool:
    is_second_next = run.has_second_plane and run.budget.fraction >= FIRST_PLANE_SHARE
    return run.budget.is_used_up or is_second_next


def _train_second_network(run: FinetuneState) -> None:
    """Train a second network for another plane, and compare both with the first one alone."""
    budget, setup = run.budget, run.setup
    if run.second_plane is None:
        run.first_plane_fraction = budget.fraction
    run.trainer.finish()
    first = run.trainer.load_best()
    second = run.second_plane = run.second_plane or run.start_second_plane(first)
    trainer = second.trainer
    network = trainer.network.to(memory_format=torch.channels_last)
    batches = LiveBatches(network, second.training_set, run.device, run.augmentation_of(trainer))
    step = run.stepper(trainer, batches, f"Learning {second.plane} slices")
    validated_slices = sum(len(item.slices) for item in setup.validation_sets)
    budget.writing_seconds += budget.validation_seconds * second.compared_inputs / validated_slices
    end = run.first_plane_fraction / FIRST_PLANE_SHARE
    fit(step, lambda: budget.is_used_up or budget.fraction >= end)
    if trainer.steps and trainer.is_finite:
        run.report(f"Comparing with and without {second.plane} slices")
        run.comparison = run.interruptible(lambda: second.compare(first, run.cancel.raise_if_cancelled))


def _batches(run: FinetuneState) -> Batches:
    """Batches that are augmented in every step or, for a frozen encoder, drawn from a feature cache."""
    network, recipe, training_set = run.trainer.network, run.setup.recipe, run.setup.training_set
    run.cancel.raise_if_cancelled()
    if recipe.adaptation == FULL:
        network = network.to(memory_format=torch.channels_last)
        return LiveBatches(network, training_set, run.device, run.augmentation_of(run.trainer))
    run.checkpointer.save()
    split = SplitNetwork(network.eval(), recipe.adaptation)
    with CancellableComputation(run.cancel):
        generator = torch.Generator().manual_seed(run.request.seed + 1)
        options = _cache_options(run, _encoding_progress(run))
        features = CachedFeatures(split, training_set, run.validator.sets, run.device, generator, options)
    if not ranks.agree(features.views):
        features.close()
        raise OutputError("The disks of the processes have room for different numbers of features; free some space.")
    run.advise(features.shortfalls)
    run.validator.use_cache(features)
    return CachedFeatureBatches(split, training_set, run.device, features)


def _cache_options(run: FinetuneState, progress: Callable[[int, int], None]) -> CacheOptions:
    request = run.request
    return CacheOptions(
        capacity_bytes=request.cache_bytes,
        parent=request.cache_folder,
        owner=CacheOwner(run.setup.features_key(request, run.device.type), run.checkpointer.path)
        if ranks.is_first()
        else None,
        limits=BudgetedEncoding(run.budget),
        is_resumed=run.validator.are_slices_fixed,
        progress=progress,
        note_seconds=min(NOTE_SECONDS, request.save_seconds),
    )


def _encoding_progress(run: FinetuneState) -> Callable[[int, int], None]:
    def report(done: int, most: int) -> None:
        run.cancel.raise_if_cancelled()
        run.checkpointer.tick()
        run.report("Encoding the slices", f"{done} of at most {most}")

    return report


def _keep_newest_if_none(run: FinetuneState) -> None:
    """Keep the newest weights if there was no validation yet."""
    trainer = run.trainer
    if trainer.best is None and trainer.steps > 0 and trainer.keep_if_best(None):
        run.advise(["It ended before the first validation: the newest weights are kept."])


def _has_kept(run: FinetuneState) -> bool:
    return run.trainer.best is not None and run.trainer.steps > 0


def _finish(run: FinetuneState, stopped: str) -> FinetuneResult:
    """Write the result; delete the training state, unless a canceled training may be resumed."""
    if run.second_plane is not None:
        run.note([describe_second_plane(run.second_plane.plane, run.comparison)])
    if run.checkpointer.error:
        run.note([f"The training could not be saved for resuming: {run.checkpointer.error}"])
    run.report("Writing the model")
    result = make_result(run, stopped)
    try:
        ranks.from_first(lambda: export(result, run.request))
    except OutputError:
        run.checkpointer.save()
        raise
    if stopped != "cancelled":
        run.checkpointer.remove()
    return result
