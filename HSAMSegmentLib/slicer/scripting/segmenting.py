"""Segmenting from a script: one scan, several scans, a sequence, a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from HSAMSegmentLib.slicer.scripting.engines import Engines

if TYPE_CHECKING:
    from HSAMSegmentLib.inference.options import SegmentOptions
    from HSAMSegmentLib.runtime.progress import Progress
    from HSAMSegmentLib.slicer.nodes.batch import Batch
    from HSAMSegmentLib.slicer.nodes.segment_session import BoundRequest, SessionEvent, Written
    from HSAMSegmentLib.workflows.segment_folder.folder_request import BatchRow

OnEvent = Callable[["SessionEvent"], None]
OnRows = Callable[["tuple[BatchRow, ...]"], None]


class Segmenting(Engines):
    """Segment scans of the scene and of folders."""

    def __init__(self) -> None:
        super().__init__()
        self._batch: Batch | None = None

    def cancel(self) -> None:
        """Ask the running job, or the batch that it belongs to, to stop. A fine-tuning goes on."""
        if self._batch is not None:
            self._batch.cancel()
        else:
            super().cancel()

    def segment(self, volumeNode, model: str = "", onEvent: OnEvent | None = None, **options: Any) -> None:
        """Start to segment in the background and return at once.

        Args:
            volumeNode: the scan.
            model: model id, or path of a file of weights; empty for the one that `modelFor` suggests.
            onEvent: called on the main thread with every event: `Progress`, `Preview`, and at the end one of `Written`,
                `Failed` and `Cancelled`.
            options: `segmentationNode` to write into (default: a new one), `roiNode` (segment only inside of its box),
                `surfaces` (also compute closed surfaces), `preview` (also tell finished slices), and what
                `segmentOptions` takes.

        Raises:
            RequestError: with a sentence, if something is wrong with the request or another job is running.
        """
        self.engine.start(self._bound(volumeNode, model, **options), on_event=onEvent)

    def segmentAndWait(self, volumeNode, model: str = "", **options: Any) -> Written:
        """Like `segment`, but return when it is done: a `Written` with `outcome` and `segmentation_node`.

        Raises:
            HSAMSegmentError: with a sentence for the user; CancelledError after a cancel.
        """
        return self.engine.run(self._bound(volumeNode, model, **options))

    @staticmethod
    def segmentOptions(
        organs: Sequence[str] = (),
        largestPiece: bool = True,
        fillHoles: bool = True,
        minimumMl: float = 0.1,
        testTimeAugmentation: bool = True,
        mirrored: bool = False,
        precision: str = "auto",
        stages: str = "auto",
        batchSize: int | None = None,
        threads: int | None = None,
        roi: tuple[int, int, int, int, int, int] | None = None,
    ) -> SegmentOptions:
        """The options of segmenting, each with what the panel takes by default.

        Args:
            organs: names of the structures to keep; all by default.
            largestPiece: keep only the largest piece of structures that are one piece.
            fillHoles: fill cavities.
            minimumMl: drop pieces below this volume in mL.
            testTimeAugmentation: give a model that asks for it several views of each slice.
            mirrored: average with the prediction for mirrored slices, about twice as long.
            precision: "auto", "full" (float32) or "mixed".
            stages: decoding stages that labels come from: "auto", "both" or "last".
            batchSize: slices per run of the network; by default what fits into memory.
            threads: CPU threads; by default torch's own number.
            roi: voxel box (i0, i1, j0, j1, k0, k1), upper bounds excluded; `roiNode` of `segment` does the same.

        Raises:
            RequestError: if a value makes no sense.
        """
        from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions

        return SegmentOptions(
            organs=tuple(organs),
            roi=roi,
            batch_size=batchSize,
            precision=precision,
            stages=stages,
            view_averaging=testTimeAugmentation,
            flip_averaging=mirrored,
            threads=threads,
            postprocess=PostprocessOptions(largestPiece, fillHoles, minimumMl),
        )

    def modelFor(self, volumeNode) -> str:
        """Id of the model that the panel would preselect for a scan, empty if none fits.

        Raises:
            RequestError: if the volume cannot be segmented.
        """
        from HSAMSegmentLib.slicer.nodes.volumes import descriptions, sampled_volume
        from HSAMSegmentLib.workflows.segment.model_choice import suggest_model

        here = [entry.manifest for entry in self.store.models() if entry.is_present and entry.manifest is not None]
        return suggest_model(sampled_volume(volumeNode), here, descriptions(volumeNode)).model_id

    def segmentScansAndWait(
        self,
        volumeNodes: Sequence[Any],
        model: str = "",
        onRows: OnRows | None = None,
        onProgress: Callable[[Progress], None] | None = None,
        device: str = "auto",
        **options: Any,
    ) -> tuple[BatchRow, ...]:
        """Segment several scans of the scene, each into a segmentation of its own; one that fails stops no other.

        Args:
            volumeNodes: the scans.
            model: for all of them; empty for the one that fits each.
            onRows: told whenever the state of a scan changes, with one row per scan.
            onProgress: told the fraction of all of it.
            device: where the network runs.
            options: what `segmentOptions` takes.

        Returns:
            One row per scan: `state`, `message`, `volumes_ml`, `output`.

        Raises:
            HSAMSegmentError: with a sentence; CancelledError after a cancel, when the finished ones stay.
        """
        from HSAMSegmentLib.slicer.nodes.batch import VolumeItem

        return self._runBatch([VolumeItem(node) for node in volumeNodes], model, onRows, onProgress, device, options)

    def segmentSequenceAndWait(
        self,
        sequenceNode,
        model: str = "",
        onRows: OnRows | None = None,
        onProgress: Callable[[Progress], None] | None = None,
        device: str = "auto",
        **options: Any,
    ) -> tuple[BatchRow, ...]:
        """Segment the frames of a sequence into a sequence of segmentations; like `segmentScansAndWait`.

        Raises:
            HSAMSegmentError: with a sentence; CancelledError after a cancel.
        """
        from HSAMSegmentLib.errors import RequestError
        from HSAMSegmentLib.slicer.nodes.sequences import FrameItem, FrameResults, sequence_problem, sequences_missing

        problem = sequences_missing() or sequence_problem(sequenceNode)
        if problem:
            raise RequestError(problem)
        results = FrameResults(sequenceNode)
        frames = [FrameItem(sequenceNode, number, results) for number in range(sequenceNode.GetNumberOfDataNodes())]
        return self._runBatch(frames, model, onRows, onProgress, device, options)

    def segmentFolderAndWait(
        self,
        source: str,
        output: str,
        model: str = "",
        onEvent: OnEvent | None = None,
        device: str = "auto",
        preview: bool = False,
        suffix: str = ".seg.nrrd",
        overwrite: bool = False,
        **options: Any,
    ) -> str:
        """Segment every scan of a folder, file by file; nothing comes into the scene. What is there is not done again.

        Args:
            source: folder with volume files and DICOM series, at any depth.
            output: folder for the results.
            model: for all of them; empty for the one that fits each.
            onEvent: told `Progress` and one `ItemDone` per scan.
            device: where the network runs.
            preview: also write a picture per scan.
            suffix: of the segmentations.
            overwrite: do every scan again.
            options: what `segmentOptions` takes.

        Returns:
            The CSV file with a row per scan.

        Raises:
            HSAMSegmentError: with a sentence; CancelledError after a cancel, when the finished ones stay.
        """
        from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest

        chosen = self.segmentOptions(**options)
        request = FolderRequest(
            str(source), str(output), model, device, chosen, preview=preview, suffix=suffix, overwrite=overwrite
        )
        return self.engine.run_request(request, onEvent)["summary"]

    def _bound(
        self,
        volumeNode,
        model: str,
        segmentationNode=None,
        roiNode=None,
        device: str = "auto",
        surfaces: bool = False,
        preview: bool = False,
        undoable: bool = True,
        **options: Any,
    ) -> BoundRequest:
        from HSAMSegmentLib.errors import RequestError
        from HSAMSegmentLib.slicer.nodes.segment_session import bind_request
        from HSAMSegmentLib.slicer.nodes.volumes import roi_bounds

        if roiNode is not None:
            options["roi"] = roi_bounds(roiNode, volumeNode)
        chosen = str(model) or self.modelFor(volumeNode)
        if not chosen:
            raise RequestError(f"No installed model seems to fit '{volumeNode.GetName()}'. Name one with model=...")
        made = self.segmentOptions(**options)
        return bind_request(
            volumeNode,
            chosen,
            device,
            made,
            segmentationNode,
            surfaces=surfaces,
            preview=preview,
            undoable=undoable,
        )

    def _runBatch(self, items, model, onRows, onProgress, device, options) -> tuple[BatchRow, ...]:
        from HSAMSegmentLib.errors import CancelledError, RequestError
        from HSAMSegmentLib.slicer.nodes.batch import Batch, BatchListener

        def ignore(_told) -> None:
            """Not asked for."""

        if self.isBusy():
            raise RequestError("Another job is running; wait for its end or cancel it first.")
        ends: list = []
        listener = BatchListener(onRows or ignore, onProgress or ignore, ends.append)
        self.segmentOptions(**options)  # what is wrong with them is said before the first scan

        def make(volume) -> BoundRequest:
            return self._bound(volume, model, device=device, undoable=False, **options)

        batch = self._batch = Batch(items, self.engine, make, listener)
        try:
            batch.start()
            self.engine.wait_until(lambda: bool(ends))
        finally:
            self._batch = None
        if ends[0] is not None:
            raise CancelledError("Cancelled; what is finished stays.")
        return batch.rows
