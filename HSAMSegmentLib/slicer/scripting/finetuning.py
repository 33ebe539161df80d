"""Fine-tuning from a script: labeled scans in, a model of one's own out, in the background or awaited."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from HSAMSegmentLib.slicer.scripting.engines import Engines

if TYPE_CHECKING:
    from HSAMSegmentLib.slicer.nodes.finetune.cases import FinetunePlan, LabeledPair
    from HSAMSegmentLib.slicer.nodes.segment_session import SessionEvent
    from HSAMSegmentLib.workflows.finetune.finetune_request import FinetuneOutcome
    from HSAMSegmentLib.workflows.finetune.training_run import TrainingRun, UnfinishedRun

OnEvent = Callable[["SessionEvent"], None]


class Finetuning(Engines):
    """Make models from labeled scans."""

    _training_run: TrainingRun | None = None

    def fineTune(self, cases: Sequence[tuple[Any, Any]], onEvent: OnEvent | None = None, **options: Any) -> None:
        """Start to fine-tune in the background and return at once; segmenting stays possible meanwhile.

        Args:
            cases: pairs of a scan and its labels: a volume node with a segmentation node, or two paths.
            onEvent: called on the main thread with `Progress`, `ValidationPicture`, `ValidationRecord` (a validation),
                and at the end one of `Done` (its `value` is a `FinetuneOutcome`), `Failed` and `Cancelled`.
            options: what `fineTuneAndWait` takes.

        Raises:
            HSAMSegmentError: with a sentence, if a case cannot be used or a fine-tuning is running.
        """
        from HSAMSegmentLib.slicer.nodes.finetune.cases import FinetuneTask

        task = FinetuneTask(self._plan(cases, **options))
        self.finetuningEngine.start_task(task, onEvent)
        self._training_run = task.training_run

    def fineTuneAndWait(
        self, cases: Sequence[tuple[Any, Any]], onEvent: OnEvent | None = None, **options: Any
    ) -> FinetuneOutcome:
        """Fine-tune and return when the model is in the store.

        Args:
            cases: pairs of a scan and its labels: a volume node with a segmentation node, or two paths.
            onEvent: as in `fineTune`, without the last event.
            options: `title` of the model (default: from its structures), `minutes` (default 5), `startFrom` (model id,
                encoder id, "auto" or "scratch"), `head` ("hsam", "autosam", "cnn", "linear"; default: that of the
                starting model), `names` (name in a case to the name it is learned as), `leftOut` (names not to learn),
                `device`, `scratch` (folder for copies and training state).

        Returns:
            A `FinetuneOutcome`: `model_id` (empty after a pause), `dice` of what was held out, `notes`.

        Raises:
            HSAMSegmentError: with a sentence; CancelledError after `cancelFineTuning`.
        """
        from HSAMSegmentLib.slicer.nodes.finetune.cases import FinetuneTask

        task = FinetuneTask(self._plan(cases, **options))
        return self.finetuningEngine.run_task(task, onEvent, lambda: self._follow(task.training_run))

    def stopFineTuning(self) -> None:
        """End now; the best state so far becomes a model."""
        self._ask("stop")

    def pauseFineTuning(self) -> None:
        """Keep everything and end; `resumeFineTuningAndWait` goes on, also after the application was closed."""
        self._ask("pause")

    def cancelFineTuning(self) -> None:
        """End the worker at once; what was learned until a moment before can be resumed."""
        self.finetuningEngine.cancel()

    def unfinishedFineTunings(self, scratch: str = "") -> list[UnfinishedRun]:
        """Fine-tunings that were paused or interrupted, the newest first."""
        from HSAMSegmentLib.workflows.finetune.training_run import unfinished_runs

        return unfinished_runs(self._scratch(scratch))

    def resumeFineTuningAndWait(
        self, unfinished: UnfinishedRun, onEvent: OnEvent | None = None, finishNow: bool = False
    ) -> FinetuneOutcome:
        """Go on with one of `unfinishedFineTunings`, or make a model of it as it stands.

        Raises:
            HSAMSegmentError: with a sentence; CancelledError after `cancelFineTuning`.
        """
        from HSAMSegmentLib.slicer.nodes.finetune.cases import ResumeTask

        task = ResumeTask(unfinished.request, finish_now=finishNow)
        return self.finetuningEngine.run_task(task, onEvent, lambda: self._follow(task.training_run))

    def _follow(self, training_run: TrainingRun) -> None:
        training_run.ask_for("")  # the wish to a process that was killed is not for the next one
        self._training_run = training_run

    def _ask(self, wish: str) -> None:
        from HSAMSegmentLib.errors import RequestError

        if not self.isFineTuning() or self._training_run is None:
            raise RequestError("No fine-tuning is running.")
        self._training_run.ask_for(wish)

    def _scratch(self, scratch: str):
        from pathlib import Path

        return Path(scratch).expanduser() if scratch else self.store.folder / "teaching"

    def _plan(
        self,
        cases: Sequence[tuple[Any, Any]],
        title: str = "",
        minutes: float = 5.0,
        startFrom: str = "auto",
        head: str = "",
        names: Mapping[str, str] | None = None,
        leftOut: Sequence[str] = (),
        device: str = "auto",
        scratch: str = "",
    ) -> FinetunePlan:
        from HSAMSegmentLib.slicer.nodes.finetune.cases import FinetunePlan, all_names, usable_summaries
        from HSAMSegmentLib.slicer.panels.finetune.start_choice import Starts
        from HSAMSegmentLib.workflows.finetune.training_run import new_model_id

        pairs = tuple(self._pair(scan, labels) for scan, labels in cases)
        summaries = usable_summaries(pairs)
        targets = all_names(summaries, dict(names or {}))
        learned = [name for name in dict.fromkeys(targets.values()) if name not in leftOut]
        starts = Starts(self.store)
        starts.refresh()
        modality = next((summary.modality for summary in summaries if summary.modality), "")
        start = starts.resolve(startFrom, learned, modality)
        title = title or f"My {', '.join(learned[:3])}"
        return FinetunePlan(
            pairs=pairs,
            names=targets,
            left_out=tuple(leftOut),
            model_id=new_model_id(title, starts.taken_ids()),
            title=title,
            start_from=start.model,
            encoder=start.encoder,
            head=head,
            minutes=minutes,
            device=device,
            scratch=self._scratch(scratch),
            store=self.store,
        )

    def _pair(self, scan, labels) -> LabeledPair:
        """A case; the worker looks into files, which may take long."""
        from HSAMSegmentLib.runtime.serialization import from_plain
        from HSAMSegmentLib.slicer.nodes.finetune.cases import FilePair, NodePair
        from HSAMSegmentLib.workflows.finetune.finetune_request import InspectRequest
        from HSAMSegmentLib.workflows.finetune.inspect_cases import CaseSummary

        if not isinstance(scan, (str, bytes)) and hasattr(scan, "GetID"):
            return NodePair(scan, labels)
        pair = FilePair(str(scan), str(labels))
        values = self.finetuningEngine.run_request(InspectRequest(pair.image, pair.labels))
        pair.summary = from_plain(CaseSummary, values)
        return pair
