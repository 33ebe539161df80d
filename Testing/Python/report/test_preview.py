"""The preview picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK

from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.label_set import Label, LabelSet
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.report.preview_picture import (
    format_ml,
    outline_colors,
    preview_figure,
    shown_slices,
    side_letters,
    write_preview,
)

RED = Label(1, "red cube", (1.0, 0.0, 0.0))
BLUE = Label(2, "blue cube", (0.0, 0.0, 1.0))
LABELS = LabelSet((RED, BLUE))


def scan(geometry: Geometry | None = None) -> tuple[Volume, Segmentation]:
    geometry = geometry or Geometry(size=(40, 30, 20), spacing_mm=(1.0, 1.0, 4.0))
    image = np.random.default_rng(0).integers(50, 90, geometry.shape).astype(np.int16)
    labels = np.zeros(geometry.shape, np.uint8)
    labels[5:15, 8:20, 5:15] = 1
    image[labels == 1] += 100
    return Volume(image, geometry, name="cube"), Segmentation(labels, geometry, LABELS)


def picture(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def test_a_readable_picture_is_written(tmp_path):
    path = write_preview(*scan(), tmp_path / "preview.png")
    image = SimpleITK.ReadImage(str(path))
    assert min(image.GetSize()) > 300


def test_outlines_have_the_color_of_their_label():
    pixels = picture(preview_figure(*scan()))
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 80) & (pixels[..., 2] < 80)
    blue = (pixels[..., 2] > 200) & (pixels[..., 0] < 80) & (pixels[..., 1] < 80)
    assert red.sum() > 500
    assert blue.sum() == 0


def test_the_legend_names_what_was_found_with_its_volume():
    texts = [text.get_text() for text in preview_figure(*scan()).texts]
    assert "red cube" in texts
    assert "4.80 mL" in texts or "4.8 mL" in texts
    assert "blue cube" not in texts
    assert any("not found: 1 of 2" in text for text in texts)


def test_an_empty_segmentation_is_said_to_be_empty():
    volume, segmentation = scan()
    segmentation.array[:] = 0
    texts = [text.get_text() for text in preview_figure(volume, segmentation).texts]
    assert "nothing was found" in texts


def test_slices_are_evenly_chosen_from_the_segmented_range():
    volume, segmentation = scan()
    frame = slice_frame(volume.geometry)
    assert shown_slices(segmentation, frame, 12) == tuple(range(5, 15))
    assert shown_slices(segmentation, frame, 5) == (6, 8, 10, 12, 14)
    segmentation.array[:] = 0
    assert shown_slices(segmentation, frame, 4) == (2, 7, 12, 17)


def test_the_patient_is_seen_from_the_feet_with_the_right_side_on_the_left():
    volume, segmentation = scan()
    marks = [text.get_text() for text in preview_figure(volume, segmentation).axes[0].texts]
    assert marks[1:] == ["R", "L", "A", "P"]


def test_a_copy_stored_the_other_way_round_gives_the_same_picture():
    volume, segmentation = scan()
    size, spacing = volume.geometry.size, volume.geometry.spacing_mm
    flipped = Geometry(size, spacing, (-(size[0] - 1) * -1.0, 0.0, 0.0), (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    other = (
        Volume(volume.array[:, :, ::-1].copy(), flipped, name="cube"),
        Segmentation(segmentation.array[:, :, ::-1].copy(), flipped, LABELS),
    )
    np.testing.assert_array_equal(picture(preview_figure(volume, segmentation)), picture(preview_figure(*other)))


def test_voxels_that_are_not_square_keep_their_shape():
    geometry = Geometry(size=(30, 30, 8), spacing_mm=(1.0, 2.0, 5.0))
    axes = preview_figure(*scan_of(geometry)).axes[0]
    assert axes.get_aspect() == pytest.approx(2.0)


def scan_of(geometry: Geometry) -> tuple[Volume, Segmentation]:
    labels = np.zeros(geometry.shape, np.uint8)
    labels[2:6, 10:20, 10:20] = 1
    return Volume(labels.astype(np.int16) * 100, geometry), Segmentation(labels, geometry, LABELS)


def test_one_slice_and_ct_work():
    geometry = Geometry(size=(30, 30, 1), spacing_mm=(1.0, 1.0, 5.0))
    labels = np.zeros(geometry.shape, np.uint8)
    labels[0, 10:20, 10:20] = 2
    volume = Volume(labels.astype(np.int16) * 100, geometry, modality="CT")
    assert len(preview_figure(volume, Segmentation(labels, geometry, LABELS)).axes) == 1


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path):
    path = tmp_path / "preview.png"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        write_preview(*scan(), path)
    assert path.read_bytes() == b"mine"
    write_preview(*scan(), path, overwrite=True)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_an_unknown_suffix_and_a_foreign_grid_are_refused(tmp_path):
    with pytest.raises(RequestError, match=r"\.png"):
        write_preview(*scan(), tmp_path / "preview.docx")
    volume, _ = scan()
    with pytest.raises(RequestError, match="same grid"):
        write_preview(volume, scan_of(Geometry((30, 30, 8)))[1], tmp_path / "preview.png")


@pytest.mark.parametrize(
    ("direction", "letters"),
    [((1, 0, 0), "L"), ((0, -1, 0), "A"), ((0, 0, 1), "S"), ((0.7, 0.7, 0.14), "LP"), ((-0.6, 0, -0.8), "IR")],
)
def test_directions_are_named_by_patient_sides(direction, letters):
    assert side_letters(direction) == letters


def test_volumes_have_a_sensible_number_of_digits():
    assert [format_ml(v) for v in (1482.4, 63.46, 0.823)] == ["1482", "63.5", "0.82"]


def test_labels_of_nearly_the_same_color_are_told_apart():
    names = ("liver", "right kidney", "left kidney", "spleen")
    colors = [(0.87, 0.51, 0.40), (0.73, 0.40, 0.33), (0.73, 0.40, 0.33), (0.62, 0.42, 0.64)]
    labels = [Label(value, name, color) for value, (name, color) in enumerate(zip(names, colors), start=1)]
    chosen = outline_colors(labels)
    assert chosen[1] == colors[0]
    assert min(math.dist(chosen[a], chosen[b]) for a in chosen for b in chosen if a < b) > 0.3


def test_many_labels_get_different_colors():
    labels = [Label(value, str(value), (0.1, 0.1, 0.1)) for value in range(1, 13)]
    assert len(set(outline_colors(labels).values())) == 12
