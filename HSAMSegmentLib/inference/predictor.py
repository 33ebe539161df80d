"""Segment volumes with a model, slice by slice, in bounded memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from HSAMSegmentLib.errors import CheckpointError, RequestError
from HSAMSegmentLib.images.orientation import SliceFrame, slice_frame
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.confidence import ConfidenceCounts
from HSAMSegmentLib.inference.label_statistics import label_results
from HSAMSegmentLib.inference.multi_planar import PlaneLogits, PlaneReading, plane_reading, too_large
from HSAMSegmentLib.inference.options import SegmentOptions, check_roi, selected_values
from HSAMSegmentLib.inference.plausibility import observe, plausibility, plausibility_warning
from HSAMSegmentLib.inference.postprocess import change_warnings, keep_values, postprocess
from HSAMSegmentLib.inference.result import LabelResult, Plausibility, SegmentationResult
from HSAMSegmentLib.inference.slice_predictor import BatchRules, SlicePredictor, cpu_threads
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.preprocess.intensity import plausibility_warnings
from HSAMSegmentLib.preprocess.network_input import StackRegion, stack_region, voxel_axis_name
from HSAMSegmentLib.preprocess.rules import PLAIN_VIEW, is_other_plane, readable_across, too_thick
from HSAMSegmentLib.runtime.devices import choose_device, default_threads
from HSAMSegmentLib.runtime.progress import CancelToken, Progress, ProgressCallback, ProgressTracker, ignore_progress
from HSAMSegmentLib.runtime.threads import FreeCores

if TYPE_CHECKING:
    from torch import Tensor

    from HSAMSegmentLib.models.interface import SegmentationNetwork
    from HSAMSegmentLib.weights.loading import LoadedModel

logger = logging.getLogger(__name__)

SlicesCallback = Callable[[np.ndarray, int, "tuple[int, ...]"], None]
"""Called after each batch with the partial label array (k, j, i), the array axis of the slices, and their indices."""

_NETWORK_FRACTION = 0.95
"""Fraction of the progress for the network; post-processing and statistics take the rest."""


@dataclass
class _Run:
    """State of segmenting one volume."""

    volume: Volume
    frame: SliceFrame
    region: StackRegion
    labels: np.ndarray
    counts: ConfidenceCounts
    cancel: CancelToken
    report: ProgressCallback
    on_slices: SlicesCallback | None
    warnings: list[str]
    timings: dict[str, float] = field(default_factory=dict)
    other_planes: tuple[str, ...] = ()
    scale: Callable[[np.ndarray], np.ndarray] | None = None

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time spent inside the context to the timings."""
        started = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - started


class Segmenter:
    """A model on a device, ready for any number of volumes. Not thread-safe."""

    def __init__(self, model: LoadedModel, *, device: str = "auto", options: SegmentOptions | None = None) -> None:
        """Select and test the device, and check the options against the model.

        Args:
            model: network and manifest; the network is moved to the device and put into evaluation mode.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            options: how to segment; assign `options` to change them between volumes.

        Raises:
            DeviceError: if the requested device does not work.
            RequestError: if the options name organs that the model does not have.
            CheckpointError: if the number of classes of the network differs from the labels in the manifest.
        """
        if model.network.num_classes != len(model.manifest.labels):
            raise CheckpointError(
                f"The network of {model.manifest.id} has {model.network.num_classes} classes, but its description "
                f"names {len(model.manifest.labels)} labels. The file is damaged; get the model again."
            )
        self.model = model
        self.device = choose_device(device)
        self.options = options or SegmentOptions()
        selected_values(model.manifest.labels, self.options.organs)

    def segment(
        self,
        volume: Volume,
        *,
        progress: ProgressCallback = ignore_progress,
        cancel: CancelToken | None = None,
        labels_out: np.ndarray | None = None,
        on_slices: SlicesCallback | None = None,
        free_cores: FreeCores | None = None,
    ) -> SegmentationResult:
        """Segment a volume.

        Args:
            volume: any size, orientation and numeric type; left unchanged.
            progress: called with fractions and the estimated remaining time.
            cancel: checked between batches, and inside slow ones, so it takes effect within a second.
            labels_out: uint8 array of the volume's shape to write the labels to, for example memory-mapped; None for a
                new one.
            on_slices: called with finished slices, before post-processing and with all labels of the model.
            free_cores: a measurement started when the scan was requested; by default one starts now.

        Returns:
            Labels on the volume's grid, with statistics. The same input gives the same result.

        Raises:
            RequestError: if the region lies outside the volume.
            DeviceError: if a single slice does not fit in memory.
            CancelledError: on cancel.
        """
        started = time.perf_counter()
        free_cores = free_cores or FreeCores()
        run = self._start(volume, progress, cancel or CancelToken(), labels_out, on_slices)
        with cpu_threads(self.options.threads or default_threads(free_cores)):
            predictor = self._predict(run)
        progress(Progress(_NETWORK_FRACTION, "Tidying the segmentation"))
        result = self._finish(run, predictor)
        result.timings_s["total"] = time.perf_counter() - started
        progress(Progress(1.0, "Done", eta_seconds=0.0))
        return result

    def _start(
        self,
        volume: Volume,
        progress: ProgressCallback,
        cancel: CancelToken,
        labels_out: np.ndarray | None,
        on_slices: SlicesCallback | None,
    ) -> _Run:
        manifest = self.model.manifest
        frame = slice_frame(volume.geometry, manifest.slices.plane)
        region = stack_region(check_roi(self.options.roi, volume.geometry), frame)
        cancel.raise_if_cancelled()
        progress(Progress(0.0, "Preparing the volume"))
        warnings = [*self.device.notes, *self.model.notes, *volume.notes, *plausibility_warnings(volume, manifest)]
        return _Run(
            volume=volume,
            frame=frame,
            region=region,
            labels=_label_array(volume, labels_out),
            counts=ConfidenceCounts(frame.stack_shape[0], len(manifest.labels) + 1),
            cancel=cancel,
            report=progress,
            on_slices=on_slices,
            warnings=warnings,
        )

    def _predict(self, run: _Run) -> SlicePredictor:
        with run.timed("preparing"):
            others = {plane: self._reading(run, plane, network) for plane, network in self._other_planes(run).items()}
            reading = self._reading(run, self.model.manifest.slices.plane, self.model.network)
            rules, run.scale = self._rules(run), reading.source.scale
        tracker = ProgressTracker(
            run.report,
            stage="Segmenting slices",
            steps=len(reading) * rules.passes + sum(len(other) for other in others.values()),
            end_fraction=_NETWORK_FRACTION,
        )
        with run.timed("network"):
            if others:
                rules = replace(rules, mean_with_planes=self._read_others(run, others, reading, tracker))
            self._label(run, reading, rules, tracker)
        for item in (*others.values(), reading):
            run.warnings.extend(item.predictor.warnings)
        return reading.predictor

    def _other_planes(self, run: _Run) -> dict[str, SegmentationNetwork]:
        """Networks of the planes to predict before the slices are labeled."""
        geometry, rule = run.volume.geometry, self.model.manifest.slices
        others = self.model.network.other_planes.items() if self.options.view_averaging else ()
        networks = {
            plane: cast("SegmentationNetwork", network)
            for plane, network in others
            if is_other_plane(plane, geometry, rule)
        }
        if not networks:
            return {}
        roi, num_classes = check_roi(self.options.roi, geometry), len(self.model.manifest.labels)
        problem = too_large(roi, num_classes) if readable_across(geometry, rule) else too_thick(geometry, rule)
        run.warnings.extend([problem] if problem else [])
        return {} if problem else networks

    def _reading(self, run: _Run, plane: str, network: SegmentationNetwork) -> PlaneReading:
        frame = slice_frame(run.volume.geometry, plane)
        region = stack_region(check_roi(self.options.roi, run.volume.geometry), frame)
        return plane_reading(
            network, self.model.manifest, run.volume, frame, region, device=self.device.name, options=self.options
        )

    def _read_others(
        self, run: _Run, others: dict[str, PlaneReading], reading: PlaneReading, tracker: ProgressTracker
    ) -> Callable[[Tensor, int], Tensor]:
        """Predict the other planes, one plain view each; return what averages the first plane's logits with them."""
        sums = PlaneLogits(run.volume.array.shape, len(self.model.manifest.labels))
        for plane, other in others.items():
            rules = BatchRules(self._last_stage_only, False, other.region.window)
            read = other.predictor.logits
            for first, logits in other.batches(
                read, rules, cancel=run.cancel, tracker=tracker, called=f"{plane} slice"
            ):
                sums.add(logits, other.frame, other.region, first)
            sums.planes += 1
        run.other_planes = tuple(others)
        return lambda logits, first: sums.mean_with(logits, reading.frame, reading.region, first)

    def _label(self, run: _Run, reading: PlaneReading, rules: BatchRules, tracker: ProgressTracker) -> None:
        values = self._value_of_channel()
        stack, window = reading.frame.to_stack(run.labels), reading.region.window
        for position, evidence in reading.batches(
            reading.predictor.predict, rules, cancel=run.cancel, tracker=tracker, called="slice"
        ):
            stack[
                position : position + len(evidence),
                window.row_start : window.row_stop,
                window.column_start : window.column_stop,
            ] = values[evidence.channels]
            run.counts.add(position, evidence)
            self._announce(run, position, len(evidence))

    def _announce(self, run: _Run, position: int, count: int) -> None:
        if run.on_slices is not None:
            indices = sorted(run.frame.volume_slice_index(index) for index in range(position, position + count))
            run.on_slices(run.labels, run.frame.axes[0], tuple(indices))

    def _rules(self, run: _Run) -> BatchRules:
        mirrored = self.options.flip_averaging
        sided = sided_pair(self.model.manifest.labels)
        if mirrored and sided is not None:
            mirrored = False
            run.warnings.append(
                f"Flip averaging was left out: this model tells {sided[0]} from {sided[1]}, which a mirrored image "
                "would exchange."
            )
        views = self.model.manifest.prediction.views if self.options.view_averaging else (PLAIN_VIEW,)
        return BatchRules(self._last_stage_only, mirrored, run.region.window, views)

    @property
    def _last_stage_only(self) -> bool:
        asked = self.options.stages
        return (self.model.manifest.prediction.stages if asked == "auto" else asked) == "last"

    def _value_of_channel(self) -> np.ndarray:
        """Label value by network channel; unwanted labels stay until after post-processing."""
        return np.array([0] + [label.value for label in self.model.manifest.labels], dtype=np.uint8)

    def _finish(self, run: _Run, predictor: SlicePredictor) -> SegmentationResult:
        manifest, geometry = self.model.manifest, run.volume.geometry
        wanted = selected_values(manifest.labels, self.options.organs)
        label_set = LabelSet(tuple(label for label in manifest.labels if label.value in wanted))
        with run.timed("postprocessing"):
            changes = postprocess(
                run.labels,
                manifest.labels,
                voxel_volume_ml=geometry.voxel_volume_ml,
                options=self.options.postprocess,
                cancel=run.cancel,
            )
            keep_values(run.labels, wanted)
        changes = tuple(change for change in changes if change.label.value in wanted)
        run.warnings.extend(change_warnings(changes, geometry.voxel_volume_ml))
        run.cancel.raise_if_cancelled()
        with run.timed("statistics"):
            channels = {label.value: channel for channel, label in enumerate(manifest.labels, start=1)}
            results = label_results(
                run.labels, label_set, geometry=geometry, frame=run.frame, counts=run.counts, channels=channels
            )
            fit = self._plausibility(run, results)
        run.warnings.extend(filter(None, [plausibility_warning(fit, manifest.title)]))
        if not any(item.voxels for item in results):
            run.warnings.append(_nothing_found(manifest.title, manifest.modality, label_set))
        return SegmentationResult(
            segmentation=Segmentation(run.labels, geometry, label_set, name=f"{run.volume.name} segmentation"),
            labels=results,
            slice_axis=voxel_axis_name(run.frame),
            warnings=tuple(dict.fromkeys(run.warnings)),
            model_id=manifest.id,
            model_title=manifest.title,
            device=predictor.device,
            precision=predictor.precision,
            precision_reason=predictor.precision_reason,
            batch_size=predictor.batch_size,
            timings_s=run.timings,
            other_planes=run.other_planes,
            dicom_files=run.volume.dicom_files,
            plausibility=fit,
        )

    def _plausibility(self, run: _Run, results: tuple[LabelResult, ...]) -> Plausibility | None:
        ranges = self.model.manifest.training_ranges
        if not ranges or run.scale is None:
            return None
        box = check_roi(self.options.roi, run.volume.geometry)
        return plausibility(observe(results, run.labels, run.volume.array, run.scale, box), ranges)


def sided_pair(labels: LabelSet) -> tuple[str, str] | None:
    """Find two labels that are the right and left of one organ, by code or by name; None if there are none.

    Sides within one organ, such as the ventricles of the heart, are different structures and do not count.
    """
    seen: dict[tuple[str, str], str] = {}
    for label in labels:
        terms = label.terminology
        if terms is None or terms.modifier is None:
            continue
        organ = (terms.type.scheme, terms.type.value)
        if organ in seen:
            return (seen[organ], label.name)
        seen[organ] = label.name
    return _sided_names([label.name for label in labels if label.terminology is None])


def _sided_names(names: list[str]) -> tuple[str, str] | None:
    seen: dict[str, str] = {}
    for name in names:
        words = name.lower().replace("_", " ").replace("-", " ").split()
        rest = " ".join(word for word in words if word not in ("left", "right", "l", "r"))
        if len(rest.split()) == len(words):
            continue
        if rest in seen:
            return (seen[rest], name)
        seen[rest] = name
    return None


def _label_array(volume: Volume, labels_out: np.ndarray | None) -> np.ndarray:
    if labels_out is None:
        return np.zeros(volume.array.shape, dtype=np.uint8)
    if labels_out.shape != volume.array.shape or labels_out.dtype != np.uint8:
        raise RequestError("The array for the labels must be uint8 and have the shape of the volume.")
    labels_out[...] = 0
    return labels_out


def _nothing_found(title: str, modality: str, labels: LabelSet) -> str:
    names = ", ".join(label.name for label in labels)
    made_for = f" It is made for {modality}." if modality else ""
    return (
        f"{title} found none of its organs ({names}) in this volume.{made_for} Check that the scan shows them, that "
        "its modality is the model's, and that its orientation is right."
    )
