"""Prepare a fine-tuning: read and check the cases, derive the recipe, build the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from HSAMSegmentLib.runtime.progress import CancelToken, ProgressCallback, ignore_progress
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.cases import (
    Case,
    common_labels,
    distinct_cases,
    matched_labels,
    open_case,
    refuse_training_scans,
)
from HSAMSegmentLib.training.data.sampling import ValidationSet, hold_out_blocks, whole_case
from HSAMSegmentLib.training.data.slice_bank import SliceBank
from HSAMSegmentLib.training.finetune_state import FinetuneState
from HSAMSegmentLib.training.initialization import InitialWeights, initialize_network, open_initial_weights
from HSAMSegmentLib.training.loop.budget import Budget
from HSAMSegmentLib.training.loop.checkpointer import load_state, state_path
from HSAMSegmentLib.training.recipe import Recipe, make_recipe
from HSAMSegmentLib.training.request import FinetuneCase, FinetuneEvents, FinetuneNote, FinetuneRequest, ignore_events
from HSAMSegmentLib.training.training_setup import TrainingSetup, training_set_of


def prepare(
    request: FinetuneRequest,
    *,
    cases: Sequence[Case] | None = None,
    validation: Sequence[Case] | None = None,
    progress: ProgressCallback = ignore_progress,
    events: FinetuneEvents = ignore_events,
    cancel: CancelToken | None = None,
    budget: Budget | None = None,
) -> FinetuneState:
    """Prepare a fine-tuning up to its first step, or to the step where it was interrupted.

    Args:
        request: the request.
        cases: training cases in memory, instead of the files of the request.
        validation: validation cases in memory, instead of the files of the request.
        progress: called with progress reports.
        events: called with every `ValidationMetrics` and `ValidationPreview`.
        cancel: interrupts the preparation.
        budget: overrides the minutes or epochs of the request.

    Raises:
        HSAMSegmentError: as `finetune`.
    """
    run = FinetuneState(request, progress, cancel or CancelToken(), budget)
    torch.manual_seed(request.seed)
    run.report("Reading the scans")
    distinct, doubled = distinct_cases(_cases(run, request.cases, cases))
    training, labels, notes = common_labels(distinct)
    given, more_notes = matched_labels(_cases(run, request.validation, validation), labels)
    refuse_training_scans(training, given)
    training, given = run.stored(training), run.stored(given)
    run.advise([*doubled, *notes, *more_notes])
    for sentence in run.advice:  # report anything unusual about the scans before the training, not after it
        events(FinetuneNote(sentence))
    run.report("Building the network")
    weights = run.interruptible(lambda: open_initial_weights(request))
    recipe = _recipe(run, training, weights, len(labels))
    initial = run.interruptible(lambda: initialize_network(weights, recipe, labels))
    run.note(initial.notes)
    run.report("Cutting the slices")
    banks, given_banks = (tuple(run.bank_of(case, recipe) for case in group) for group in (training, given))
    validation_sets = _validation_sets(run, banks, given_banks)
    training_set = training_set_of(
        banks, validation_sets, recipe, num_classes=len(labels), batch_size=request.batch_size
    )
    setup = TrainingSetup(labels, recipe, initial, tuple(training), tuple(given), training_set, validation_sets)
    run.attach(setup, events)
    run.resume()
    return run


def _recipe(run: FinetuneState, training: Sequence[Case], weights: InitialWeights, num_classes: int) -> Recipe:
    """The recipe of a new training, or that with which version 0.2.0 started the training to be resumed."""
    request = run.request
    recipe, earlier = (
        make_recipe(request, training, weights.manifest, num_classes, weights.encoder, keep_pixels=keep_pixels)
        for keep_pixels in (False, True)
    )
    path = state_path(request.output)
    state = ranks.from_first(lambda: load_state(path) if request.resume and path.is_file() else None)
    pixels = earlier.slices.pixel_spacing_mm
    is_earlier = state is not None and state.get("pixel_spacing_mm", pixels) == pixels
    return earlier if is_earlier else recipe


def _cases(run: FinetuneState, files: Sequence[FinetuneCase], given: Sequence[Case] | None) -> list[Case]:
    """The given cases, or those of the files."""
    found = list(given or ())
    if given is None:
        names = run.request.names or None
        for item in files:
            case = run.interruptible(lambda item=item: open_case(item, run.request.labels, names=names))  # type: ignore[misc]
            found += run.stored([case])
    for case in found:
        run.advise(case.notes)
    return found


def _validation_sets(
    run: FinetuneState, banks: tuple[SliceBank, ...], given: tuple[SliceBank, ...]
) -> tuple[ValidationSet, ...]:
    """The validation cases, or otherwise slices held out of the training cases."""
    if given:
        return tuple(whole_case(bank) for bank in given)
    sets = tuple(item for item in map(hold_out_blocks, banks) if item is not None)
    if sets:
        run.note(["Validated on held-out slices of the same scan: this Dice does not predict Dice on other scans."])
    else:
        run.note(["Too few labeled slices to hold some out: there was no validation, and the last weights are kept."])
    return sets
