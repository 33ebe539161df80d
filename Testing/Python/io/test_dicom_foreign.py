"""Odd files and foreign text: what is DICOM by its content, what only is named so, and what no scan is."""

from __future__ import annotations

import json
import os
import tempfile

import numpy as np
import pydicom
import pytest
from dicom_files import reencode, write_series, write_slice
from grids_of_tests import oblique_geometry
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.dicom.placement import clean_text
from HSAMSegmentLib.io.dicom.sniff import is_dicom_file
from HSAMSegmentLib.io.dicom.writing import write_dicom
from HSAMSegmentLib.io.quiet_libraries import quiet_libraries
from HSAMSegmentLib.io.scan_folder import find_scans
from HSAMSegmentLib.io.volume_files import list_series, read_volume
from HSAMSegmentLib.report.segmentation_report import write_report

SIZE = (6, 5, 8)
NOT_DICOM = [
    (b"", "is empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "pointer file of Git LFS"),
    (b"/annex/objects/SHA256E-s5--0.dcm\n", "pointer file of git-annex"),
    (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
    (b"Please find the images on the other disc.\n", "text file"),
    (bytes(range(256)) * 4, "not a DICOM file"),
]


@pytest.fixture
def grid():
    return oblique_geometry(size=SIZE)


@pytest.fixture
def scan(grid):
    return np.random.default_rng(0).integers(-1000, 1000, grid.shape).astype(np.int16)


@pytest.mark.parametrize("suffix", [".dcm", "", ".img", ".nii", ".hdr"])
@pytest.mark.parametrize("has_preamble", [True, False])
def test_content_decides_what_is_dicom(tmp_path, scan, grid, suffix, has_preamble):
    for number, path in enumerate(write_series(tmp_path / "p", scan, grid)):
        if not has_preamble:
            reencode(path, None)
        path.rename(path.parent / f"I{number:03d}{suffix}")
    np.testing.assert_array_equal(read_volume(tmp_path / "p").array, scan)
    np.testing.assert_array_equal(read_volume(tmp_path / "p" / f"I002{suffix}").array, scan)
    (only,) = find_scans(tmp_path)
    assert (only.path, only.problem) == (tmp_path / "p", "")


@pytest.mark.parametrize(("content", "reason"), NOT_DICOM)
def test_a_file_that_is_only_named_like_dicom_is_called_what_it_is(tmp_path, scan, grid, content, reason):
    write_series(tmp_path / "p", scan, grid)
    (tmp_path / "p" / "extra.dcm").write_bytes(content)
    volume = read_volume(tmp_path / "p")
    np.testing.assert_array_equal(volume.array, scan)
    assert reason in " ".join(volume.notes)
    with pytest.raises(VolumeError, match=reason):
        read_volume(tmp_path / "p" / "extra.dcm")
    problems = [item.problem for item in find_scans(tmp_path)]
    assert len(problems) == 2
    assert reason in " ".join(problems)


def test_a_slice_without_content_is_named_as_the_cause_of_the_gap(tmp_path, scan, grid):
    paths = write_series(tmp_path, scan, grid)
    paths[3].write_bytes(NOT_DICOM[1][0])
    with pytest.raises(VolumeError, match=f"1 slices .* missing.*{paths[3].name}.*Git LFS"):
        read_volume(tmp_path)


def test_a_folder_of_pointers_is_one_line(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.dcm").write_bytes(NOT_DICOM[1][0])
    with pytest.raises(VolumeError, match="Git LFS"):
        read_volume(tmp_path)
    (only,) = find_scans(tmp_path)
    assert "4 more files" in only.problem


def test_a_mosaic_is_refused_with_the_way_to_convert_it(tmp_path, scan, grid):
    mosaic = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    for time in range(3):
        write_slice(
            tmp_path / f"{time}.dcm", scan[time], grid.origin_mm, grid.direction_matrix, modality="MR",
            ImageType=mosaic, AcquisitionNumber=time,
        )  # fmt: skip
    for source in (tmp_path, tmp_path / "1.dcm"):
        with pytest.raises(VolumeError, match=r"Siemens mosaic.*dcm2niix"):
            read_volume(source)


def test_a_mosaic_is_known_by_its_private_count_of_tiles_too(tmp_path, scan, grid):
    path = write_slice(tmp_path / "0.dcm", scan[0], grid.origin_mm, grid.direction_matrix, modality="MR")
    data = pydicom.dcmread(path)
    data.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 16)
    data.save_as(path)
    with pytest.raises(VolumeError, match="Siemens mosaic"):
        read_volume(path)


@pytest.mark.parametrize(
    ("object_class", "kind"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.4", "SEG"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "PR"),
        ("1.2.840.10008.5.1.4.1.1.88.59", "KO"),
        ("1.2.840.10008.5.1.4.1.1.88.33", "SR"),
    ],
)
def test_an_object_that_is_no_scan_is_known_by_its_class_whatever_its_modality(
    tmp_path, scan, grid, object_class, kind
):
    write_series(tmp_path / "ct", scan, grid)
    other = write_slice(
        tmp_path / "other.dcm", scan[0], grid.origin_mm, grid.direction_matrix, uid="7.7", SOPClassUID=object_class
    )
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)
    with pytest.raises(VolumeError, match=f"not a scan.*{kind}"):
        read_volume(other)


def test_an_object_without_an_image_is_called_what_it_is(tmp_path):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.Modality, data.SeriesInstanceUID = "RTSTRUCT", "1.2"
    write_dicom(data, tmp_path / "contours.dcm")
    with pytest.raises(VolumeError, match=r"not a scan.*RTSTRUCT"):
        read_volume(tmp_path / "contours.dcm")
    with pytest.raises(VolumeError, match="there is 1 RTSTRUCT"):
        read_volume(tmp_path)


def test_the_index_of_a_disc_stands_for_its_folder(tmp_path, scan, grid):
    write_series(tmp_path / "DATA", scan, grid)
    index = Dataset()
    index.file_meta = FileMetaDataset()
    index.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    index.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    index.FileSetID = "DISC"
    write_dicom(index, tmp_path / "DICOMDIR")
    np.testing.assert_array_equal(read_volume(tmp_path / "DICOMDIR").array, scan)
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)
    (found,) = [item for item in find_scans(tmp_path) if not item.skipped]
    assert found.problem == ""


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO_IR 100", "Schädel quer müde"),
        ("ISO_IR 192", "Leber größer"),
        ("ISO_IR 144", "Печень"),
        (["", "ISO 2022 IR 87"], "肝臓"),
    ],
)
def test_descriptions_are_decoded_by_their_character_set(tmp_path, scan, grid, charset, text):
    write_series(tmp_path, scan, grid, SpecificCharacterSet=charset, SeriesDescription=text)
    volume = read_volume(tmp_path)
    assert volume.name == text
    np.testing.assert_array_equal(read_volume(tmp_path, series=text).array, scan)


@pytest.mark.parametrize("text", [b"M\xfcde", b"bell\x07 and\r\nline", b"\xed\xa0\x80 half", b"nothing\x00inside"])
@pytest.mark.parametrize("charset", [None, "ISO_IR 192", "NO SUCH SET"])
def test_no_description_stops_a_result(tmp_path, scan, grid, text, charset):
    place = b"PLACE FOR A TEXT"
    tags = {} if charset is None else {"SpecificCharacterSet": charset}
    for path in write_series(tmp_path / "p", scan, grid, SeriesDescription=place.decode(), **tags):
        path.write_bytes(path.read_bytes().replace(place, text.ljust(len(place))))
    volume = read_volume(tmp_path / "p")
    np.testing.assert_array_equal(volume.array, scan)
    assert volume.name.encode("utf-8").decode("utf-8") == volume.name
    assert volume.name.isprintable()
    assert "\n" not in str(list_series(tmp_path / "p")[0])


def test_text_is_kept_but_for_what_cannot_be_written():
    assert clean_text("a\x00b \t c\ud800") == "ab c\N{REPLACEMENT CHARACTER}"


def test_a_report_is_written_whatever_the_names_in_it(tmp_path):
    name = os.fsdecode(b"M\xfcde.nii")
    path = write_report({"name": name}, tmp_path / "report.json")
    assert json.loads(path.read_text(encoding="utf-8"))["name"] == name


def test_what_a_library_writes_stays_off_the_terminal(capfd):
    with quiet_libraries(), quiet_libraries():
        os.write(2, b"library: warning\n")
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"


def test_a_broken_file_leaves_the_terminal_to_our_sentence(tmp_path, scan, grid, capfd):
    paths = write_series(tmp_path, scan, grid, ImagePositionPatient=["1", "2", "3"])
    for path in paths:
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(VolumeError):
        read_volume(tmp_path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_anywhere_is_refused_in_one_line(tmp_path, scan, grid, cut):
    path = write_series(tmp_path, scan[:1], grid)[0]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    for source in (path, tmp_path):
        with pytest.raises(VolumeError) as refusal:
            read_volume(source)
        assert "\n" not in str(refusal.value)


def test_a_link_without_content_is_told(tmp_path, scan, grid):
    write_series(tmp_path / "p", scan, grid)
    (tmp_path / "p" / "last.dcm").symlink_to(tmp_path / "annex" / "last.dcm")
    volume = read_volume(tmp_path / "p")
    np.testing.assert_array_equal(volume.array, scan)
    assert '"last.dcm" is a link' in " ".join(volume.notes)
    assert any("is a link" in item.problem for item in find_scans(tmp_path))


def test_small_numbers_in_a_raw_file_are_no_dicom(tmp_path):
    path = tmp_path / "labels.img"
    for values in ([2, 0, 2, 0, 2, 8], [8, 5, 2, 0, 8, 8], [8, 8, 8, 8, 8, 8]):
        path.write_bytes(np.array(values * 200, "<u2").tobytes())
        assert not is_dicom_file(path)


def test_reading_needs_no_place_for_what_libraries_write(tmp_path, scan, grid, monkeypatch):
    def no_place(*_, **__):
        raise OSError("no space left")

    write_series(tmp_path, scan, grid)
    monkeypatch.setattr(tempfile, "TemporaryFile", no_place)
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan)
