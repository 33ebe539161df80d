"""`hsam-segment finetune`: fine-tune a model on labeled scans."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from HSAMSegmentLib.cli.console import Console, format_seconds, format_table
from HSAMSegmentLib.errors import CancelledError, RequestError
from HSAMSegmentLib.runtime.atomic_files import check_outputs
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.training.request import (
    FinetuneCase,
    FinetuneNote,
    FinetuneRequest,
    FinetuneResult,
    ValidationMetrics,
)

MODEL_SUFFIX = ".safetensors"

_ENDINGS = {
    "budget": "The time or the epochs are used up",
    "no more progress": "Dice stopped rising",
    "loss not a number": "The loss was not finite",
    "cancelled": "Cancelled",
}


def run(arguments: argparse.Namespace, cancel: CancelToken) -> int:
    """Fine-tune, print the Dice of each structure, and say how to use the model; return the exit code.

    Raises:
        HSAMSegmentError: as `training.finetune.finetune`.
    """
    if arguments.suggest is not None:
        from HSAMSegmentLib.cli import suggest

        return suggest.run(arguments, cancel)
    missing = [name for name, value in (("--case", arguments.cases), ("-o/--output", arguments.output)) if not value]
    if missing:
        arguments.parser.error(f"the following arguments are required: {', '.join(missing)}")
    request = _request(arguments)
    check_outputs([request.output, request.report, request.plot], overwrite=request.overwrite)
    _require_cases(request)
    from HSAMSegmentLib.training.finetune import finetune

    # Of several processes started by torchrun, only the first one prints.
    is_first = os.environ.get("RANK", "0") == "0"
    with Console(quiet=arguments.quiet or not is_first) as console:
        events = _Events(console)
        result = finetune(request, progress=console.progress, events=events.show, cancel=cancel)
        for note in result.notes:
            if note not in events.told:
                console.note(note)
        console.result(_table(result))
        console.result(
            f"The model is {result.path}; use it with: hsam-segment segment SCAN -o OUT --model {result.path}"
        )
        if result.stopped == "cancelled":
            console.note("Cancelled; the best state so far was kept. The same command with --resume goes on.")
            return CancelledError.exit_code
    return 0


class _Events:
    """Prints the validations of a training."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.told: list[str] = []

    def show(self, event: object) -> None:
        """Write a line for each validation, and for each note before the training."""
        if isinstance(event, FinetuneNote):
            self.told.append(event.sentence)
            self._console.note(event.sentence)
        if not isinstance(event, ValidationMetrics):
            return
        dice = f", Dice {event.mean_dice:.3f}" if event.mean_dice is not None else ""
        kept = " (kept)" if event.kept and dice else ""
        loss = f"loss {event.loss:.3f}" if event.step else "before the first step"
        self._console.note(f"step {event.step}, epoch {event.epoch:.1f}: {loss}{dice}{kept}")


def _request(arguments: argparse.Namespace) -> FinetuneRequest:
    output = arguments.output
    if not output.name.endswith(MODEL_SUFFIX):
        raise RequestError(f"A model is written to a file that ends in {MODEL_SUFFIX}, not to {output.name}.")
    # Files that an interrupted run wrote for this model belong to the run that resumes it.
    interrupted = output.with_name(output.name + ".training").is_file()
    return FinetuneRequest(
        output=output,
        cases=_pairs(arguments.cases),
        validation=_pairs(arguments.validate),
        names=arguments.names or {},
        head=arguments.head or "",
        encoder=arguments.encoder or "",
        start_from=arguments.start_from or "",
        lora_blocks=arguments.lora_blocks,
        minutes=arguments.minutes,
        epochs=arguments.epochs,
        schedule=arguments.schedule,
        seed=arguments.seed,
        device=arguments.device,
        resume=arguments.resume,
        overwrite=arguments.overwrite or (arguments.resume and interrupted),
        report=arguments.report,
        plot=arguments.plot,
        stream_folder=arguments.stream,
    )


def _pairs(values: list[list[Path]]) -> tuple[FinetuneCase, ...]:
    return tuple(FinetuneCase.of_files(image, labels) for image, labels in values)


def _require_cases(request: FinetuneRequest) -> None:
    for case in (*request.cases, *request.validation):
        for path in (case.scan.path, case.label_file):
            if not Path(path).exists():
                raise RequestError(f"There is no file {path}.")


def _table(result: FinetuneResult) -> str:
    ending = _ENDINGS.get(result.stopped, result.stopped)
    summary = f"{ending} after {result.steps} steps in {format_seconds(result.seconds)}."
    if not result.dice:
        return f"{summary} Nothing was validated."
    rows = [(name, f"{value:.3f}") for name, value in result.dice.items()]
    rows.append(("mean", f"{sum(result.dice.values()) / len(result.dice):.3f}"))
    return f"{format_table(('structure', 'Dice'), rows)}\nValidated on {result.validated_on}. {summary}"
