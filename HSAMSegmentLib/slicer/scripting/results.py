"""Results in a script: compare, review, statistics, files; and the command line for all that has no method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from HSAMSegmentLib.slicer.scripting.engines import Engines

if TYPE_CHECKING:
    from HSAMSegmentLib.slicer.nodes.segment_session import SessionEvent
    from HSAMSegmentLib.slicer.nodes.segmentations.comparison import Compared
    from HSAMSegmentLib.workflows.segment.review import Review
    from HSAMSegmentLib.workflows.segment.segment_request import SegmentOutcome

OnEvent = Callable[["SessionEvent"], None]
COMMAND_SECONDS = 24 * 3600
_RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from HSAMSegmentLib.cli.main import main; sys.exit(main())"


class Results(Engines):
    """What can be done with what was segmented."""

    def compareAndWait(self, nodeA, nodeB, onEvent: OnEvent | None = None) -> Compared:
        """Compare a segmentation with a reference, structures paired by terminology and name.

        Args:
            nodeA: segmentation or label map that is judged.
            nodeB: segmentation or label map that is taken as true.
            onEvent: told the `Progress`.

        Returns:
            A `Compared` with `outcome` (one score per structure, in `outcome.scores`) and `table_node`.

        Raises:
            HSAMSegmentError: with a sentence for the user.
        """
        from HSAMSegmentLib.slicer.nodes.segmentations.comparison import CompareTask, guess_pairs

        return self.engine.run_task(CompareTask(nodeA, nodeB, guess_pairs(nodeA, nodeB)), onEvent)

    @staticmethod
    def showDisagreement(compared: Compared):
        """Add a segmentation of what only A has, what only B has, and where both differ; returns its node."""
        from HSAMSegmentLib.slicer.nodes.segmentations.comparison import show_disagreement

        return show_disagreement(compared)

    @staticmethod
    def review(outcome: SegmentOutcome) -> dict[str, Review]:
        """The traffic light of each structure by its name: `level`, `word`, `reasons`."""
        from HSAMSegmentLib.workflows.segment.review import review

        return {organ.label.name: review(organ) for organ in outcome.organs}

    @staticmethod
    def statistics(segmentationNode, volumeNode=None):
        """A table of Slicer's Segment Statistics of all segments; returns the table node.

        Raises:
            RequestError: if this Slicer has no Segment Statistics.
        """
        from HSAMSegmentLib.slicer.nodes.result_exports import segment_statistics

        return segment_statistics(segmentationNode, volumeNode)

    @staticmethod
    def exportFile(segmentationNode, volumeNode, path: str) -> Path:
        """Write all segments to `.seg.nrrd`, a label map (`.nii.gz`, `.nrrd`, `.mha`) or surfaces (`.stl`, `.obj`).

        Raises:
            HSAMSegmentError: with a sentence.
        """
        from HSAMSegmentLib.slicer.nodes.result_exports import export_file

        return export_file(segmentationNode, volumeNode, path)

    @staticmethod
    def exportDicomSegmentation(segmentationNode, volumeNode, folder: str) -> Path:
        """Write a DICOM Segmentation with Slicer's own exporter; the scan must have been loaded from DICOM.

        Raises:
            HSAMSegmentError: with a sentence.
        """
        from HSAMSegmentLib.slicer.nodes.result_exports import export_dicom_segmentation

        return export_dicom_segmentation(segmentationNode, volumeNode, folder)

    @staticmethod
    def commandLine(*arguments: str, seconds: float = COMMAND_SECONDS) -> tuple[int, str]:
        """Run a command of `hsam-segment` in a process of its own, with the Python of this application, and wait.

        Args:
            arguments: as on the command line, for example `"evaluate", "organs.seg.nrrd", "reference.nii.gz"`.
            seconds: after which it is ended.

        Returns:
            The exit code (0 if all went well), and what was printed.

        Raises:
            RequestError: if it takes longer.
        """
        import subprocess

        from HSAMSegmentLib.errors import RequestError
        from HSAMSegmentLib.worker.process_runner import worker_python

        library = str(Path(__file__).resolve().parents[3])
        command = [worker_python(), "-c", _RUN, library, *(str(argument) for argument in arguments)]
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RequestError(f"The command did not end within {seconds:.0f} s.") from error
        return done.returncode, done.stdout
