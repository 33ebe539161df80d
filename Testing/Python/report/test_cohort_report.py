"""The page of a cohort: complete, escaped, small, and the same numbers as the reports."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from urllib.parse import unquote

import numpy as np
import pytest
from result_folders import write_result, write_summary

from HSAMSegmentLib.errors import CancelledError, OutputError, RequestError
from HSAMSegmentLib.export.formats import save_segmentation
from HSAMSegmentLib.export.source_images import Origin
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.measurement.findings import PARTS, RANGE, SIDES
from HSAMSegmentLib.measurement.scan import measure_scan
from HSAMSegmentLib.report.cohort.cohort import CHANGED, GONE, OUTLIER, PLAUSIBILITY, Cohort, CohortScan, with_outliers
from HSAMSegmentLib.report.cohort.page import cohort_page
from HSAMSegmentLib.report.thumbnail import make_thumbnail
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.workflows.context import Context, ignore_event
from HSAMSegmentLib.workflows.results.cohort_report import CohortReportRequest, write_cohort_report
from HSAMSegmentLib.workflows.results.folder_statistics import folder_rows

GRID = Geometry(size=(40, 36, 16), spacing_mm=(2.0, 2.0, 4.0))
NAMES = {1: "liver", 2: "right kidney", 3: "left kidney"}
RANGES = {"liver": (10.0, 60.0)}
ODD = "<script>alert(\"x\")</script> & <b>Müller</b> 'q'"


def scan(liver=12) -> tuple[Volume, Segmentation]:
    """A liver and two kidneys, the right one where x of LPS is small."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[3:13, 4 : 4 + liver, 3:25] = 1
    labels[5:10, 25:32, 4:10] = 2
    labels[5:10, 25:32, 30:36] = 3
    array = (40.0 * (labels > 0) + np.arange(GRID.size[0])).astype(np.float32)
    return Volume(array, GRID, modality="CT"), Segmentation(labels, GRID, label_set_of(NAMES))


@pytest.fixture
def cohort_folder(tmp_path):
    """Ten usual scans and one of each kind of unusual ones."""
    out = tmp_path / "out"
    for number in range(10):
        volume, labels = scan(12 + number % 3)
        write_result(
            out, f"a/usual {number}", volume, labels, scan=tmp_path / "in" / f"{number}.nii.gz", ranges_ml=RANGES
        )
    volume, labels = scan()
    flipped = replace(labels, array=labels.array[:, :, ::-1].copy())
    write_result(out, "flipped", volume, flipped)
    broken = replace(labels, array=labels.array.copy())
    broken.array[13:15, 20:24, 26:39] = 1
    write_result(out, "broken", volume, broken)
    write_result(out, "large", *scan(20), ranges_ml=RANGES)
    write_result(out, "doubtful", volume, labels, plausibility={"score": 0.2, "reasons": ["liver is darker"]})
    write_summary(out, [("bad", "failed", f"It is {ODD}."), ("a/usual 1", "done", "")])
    write_summary(out, [("late", "not started", "")], name="summary.2-of-3.csv")
    return out


def report_on(folder, name="report.html", **changes) -> tuple[Cohort, str]:
    page = folder.parent / name
    cohort = write_cohort_report(CohortReportRequest(folder, page, **changes), Context())
    return cohort, page.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects links, ids, and tags; complains about tags that are not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links, self.ids, self.tags, self.open = [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.links += [found["href"]] if "href" in found else []
        self.ids += [found["id"]] if "id" in found else []
        if tag not in ("meta", "img", "br", "input", "path", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_unusual_scans_are_found_and_usual_ones_are_not(cohort_folder):
    cohort, _ = report_on(cohort_folder)
    by_name = {item.name: {finding.kind for finding in item.worth_a_look} for item in cohort.scans}
    assert {name for name, kinds in by_name.items() if kinds} == {"flipped", "broken", "large", "doubtful"}
    assert by_name["flipped"] == {SIDES}
    assert PARTS in by_name["broken"]
    assert by_name["large"] == {RANGE}
    assert by_name["doubtful"] == {PLAUSIBILITY}
    assert set(cohort.others) == {("bad", "failed", f"It is {ODD}."), ("late", "not started", "")}


def test_the_page_is_well_formed_and_its_links_lead_somewhere(cohort_folder):
    _, page = report_on(cohort_folder)
    read = Reader(page)
    assert len(set(read.ids)) == len(read.ids)
    inside = [link[1:] for link in read.links if link.startswith("#")]
    files = [link for link in read.links if not link.startswith("#")]
    assert inside
    assert set(inside) <= set(read.ids)
    assert len(files) > 20
    for link in files:
        assert (cohort_folder.parent / unquote(link)).is_file(), link


def test_the_page_loads_nothing(cohort_folder):
    _, page = report_on(cohort_folder)
    assert re.findall(r'(?:src|href)="(?!data:image/jpeg|#|\./)[^"]*"', page) == []
    assert "default-src 'none'" in page
    assert Reader(page).tags.count("script") == 1


def test_text_of_others_is_escaped_wherever_it_stands(tmp_path):
    labels = label_set_of({1: ODD})
    array = np.zeros(GRID.shape, np.uint8)
    array[3:6, 3:6, 3:6] = 1
    measured = measure_scan(Segmentation(array, GRID, labels), ranges_ml={ODD: (100.0, 200.0)})
    scans = (CohortScan(ODD, measured, ODD, measured.findings, files=((ODD, tmp_path / 'a"b<c>#?.nii'),)),)
    page = cohort_page(Cohort(ODD, scans, ((ODD, ODD, ODD),), (ODD,)), tmp_path / "page.html")
    read = Reader(page)
    assert read.tags.count("script") == 1
    assert "b" not in [tag for tag in read.tags if tag == "b"][5:]
    assert "<b>Müller" not in page
    assert page.count("&lt;script&gt;") >= 8
    (link,) = {link for link in read.links if not link.startswith("#")}
    assert unquote(link) == './a"b<c>#?.nii'


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_a_name_that_is_no_text_does_not_stop_it(tmp_path):
    write_result(tmp_path / "out", "caf\udce9", *scan())
    cohort, page = report_on(tmp_path / "out", pictures=False)
    assert len(cohort.scans) == 1
    assert "caf" in page


def test_five_hundred_scans_take_less_than_three_megabytes_without_pictures(tmp_path):
    names = {value: f"structure number {value}" for value in range(1, 14)}
    array = np.zeros(GRID.shape, np.uint8)
    for value in names:
        array[2:6, 2 + 2 * value : 4 + 2 * value, 3:9] = value
    measured = measure_scan(
        Segmentation(array, GRID, label_set_of(names)), confidences=dict.fromkeys(names.values(), 0.8)
    )
    rng = np.random.default_rng(0)
    scans = []
    for number in range(500):
        factors = np.exp(rng.normal(0, 0.2, len(names)))
        statistics = [
            replace(item, volume_ml=item.volume_ml * factor, mean=50 * factor)
            for item, factor in zip(measured.statistics, factors)
        ]
        files = tuple((title, tmp_path / f"hospital/{number:04d}/{title}") for title in ("segmentation", "report"))
        name = f"hospital/patient {number:04d}/series"
        scans.append(CohortScan(name, replace(measured, statistics=tuple(statistics)), "abdomen-ct", files=files))
    page = cohort_page(Cohort("five hundred", with_outliers(scans)), tmp_path / "page.html")
    assert 200_000 < len(page.encode()) < 3_000_000


def test_an_outlier_is_told_once_and_only_among_enough_scans():
    usual = [CohortScan(str(number), measure_scan(scan(12 + number % 3)[1])) for number in range(9)]
    large = CohortScan("large", measure_scan(scan(20)[1]))
    found = with_outliers([*usual, large])
    assert [[item.kind for item in one.worth_a_look] for one in found] == [*[[]] * 9, [OUTLIER]]
    assert with_outliers([*usual[:6], large])[-1].worth_a_look == ()
    ranged = measure_scan(scan(20)[1], ranges_ml=RANGES)
    known = CohortScan("large", ranged, findings=ranged.findings)
    assert [item.kind for item in with_outliers([*usual, known])[-1].worth_a_look] == [RANGE]


def test_a_corrected_segmentation_is_measured_again_and_a_lost_one_is_told(tmp_path):
    out = tmp_path / "out"
    volume, labels = scan()
    write_result(out, "corrected", volume, labels, scan=tmp_path / "in.nii.gz", ranges_ml={"liver": (30.0, 60.0)})
    write_result(out, "lost", volume, labels)
    smaller = replace(labels, array=np.where(labels.array == 1, 0, labels.array))
    smaller.array[5:7, 5:7, 5:7] = 1
    save_segmentation(smaller, out / "corrected.seg.nrrd", Origin(), overwrite=True)
    (out / "lost.seg.nrrd").unlink()
    cohort, _ = report_on(out)
    corrected, lost = cohort.scans
    assert {item.kind for item in corrected.worth_a_look} == {CHANGED, RANGE}
    assert corrected.statistics("liver").volume_ml == pytest.approx(8 * 16 / 1000)
    assert {item.kind for item in lost.worth_a_look} == {GONE}
    rows, notes = folder_rows(out)
    assert notes == []
    assert next(row["volume_ml"] for row in rows if row["structure"] == "liver") == pytest.approx(8 * 16 / 1000)


def test_reports_of_an_older_version_are_measured_from_their_files(tmp_path):
    out = tmp_path / "out"
    volume, labels = scan()
    write_result(out, "old", volume, labels, scan=tmp_path / "in.nii.gz", with_measurements=False)
    write_result(out, "old without scan", volume, labels, with_measurements=False)
    cohort, page = report_on(out)
    (one,) = cohort.scans
    assert one.statistics("liver").volume_ml == pytest.approx(measure_scan(labels).statistics[0].volume_ml, rel=1e-6)
    (note,) = cohort.notes
    assert note.startswith("old without scan: The measurements in old without scan.report.json are missing")
    assert "segment the scan again" in page


def test_pictures_are_small_show_outlines_and_can_be_left_out(cohort_folder):
    from PIL import Image

    volume, labels = scan()
    picture = make_thumbnail(volume, labels)
    shown = np.asarray(Image.open(BytesIO(picture)).convert("RGB")).astype(int)
    assert max(shown.shape) == 200
    assert len(picture) < 20_000
    assert (np.ptp(shown, axis=2) > 80).sum() > 100
    plain = np.asarray(
        Image.open(BytesIO(make_thumbnail(volume, replace(labels, array=0 * labels.array)))).convert("RGB")
    )
    assert (np.ptp(plain.astype(int), axis=2) > 80).sum() == 0
    _, page = report_on(cohort_folder)
    assert page.count("<img") == 10
    _, without = report_on(cohort_folder, "other.html", pictures=False)
    assert without.count("<img") == 0


def test_the_page_is_replaced_only_on_request_and_bad_wishes_are_refused(cohort_folder, tmp_path):
    page = tmp_path / "report.html"
    page.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        report_on(cohort_folder)
    assert page.read_text() == "mine"
    report_on(cohort_folder, overwrite=True)
    with pytest.raises(OutputError, match=r"an \.html file"):
        report_on(cohort_folder, "report.pdf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="There is no report"):
        report_on(tmp_path / "empty", "other.html")
    with pytest.raises(RequestError, match="There is no folder"):
        report_on(tmp_path / "nowhere", "other.html")


def test_a_cancel_leaves_no_page(cohort_folder):
    cancel = CancelToken()
    cancel.cancel()
    page = cohort_folder.parent / "report.html"
    with pytest.raises(CancelledError):
        write_cohort_report(CohortReportRequest(cohort_folder, page), Context(ignore_event, cancel))
    assert not page.exists()
