"""The program `hsam-segment`, run as a user runs it: a process with arguments, output, and an exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from HSAMSegmentLib.volumes.geometry import Geometry
from HSAMSegmentLib.volumes.terminology import label_set_of
from HSAMSegmentLib.volumes.volume import Segmentation


@pytest.fixture
def home(tmp_path):
    """An empty store of the user's."""
    return tmp_path / "store"


@pytest.fixture
def program(home, tmp_path):
    """Runs the program in an empty folder with an empty store."""
    folder = tmp_path / "work"
    folder.mkdir()

    def run(*arguments, **options):
        command = [sys.executable, "-m", "HSAMSegmentLib", *map(str, arguments)]
        return subprocess.run(
            command, cwd=folder, env=environment(home), capture_output=True, text=True, check=False, **options
        )

    run.folder = folder
    return run


def environment(home):
    return {
        **os.environ,
        "HSAMSEGMENT_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "2",
        "COLUMNS": "100",
    }


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A model with a tiny encoder and random weights."""
    from small_models import tiny_hsam_model

    from HSAMSegmentLib.checkpoints.loading import save_model

    model = tiny_hsam_model()
    return save_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", model.network, model.manifest)


@pytest.fixture(scope="session")
def scan(tmp_path_factory):
    """A small phantom, with its true labels beside it."""
    import SimpleITK as sitk

    from HSAMSegmentLib.volumes.images import image_of
    from HSAMSegmentLib.volumes.phantom import abdomen_phantom, phantom_geometry

    volume, truth = abdomen_phantom(geometry=phantom_geometry((48, 48, 6), (6.0, 6.0, 30.0)))
    path = tmp_path_factory.mktemp("scan") / "phantom.nii.gz"
    sitk.WriteImage(image_of(volume.array, volume.geometry), str(path))
    sitk.WriteImage(image_of(truth.array, truth.geometry), str(path.parent / "phantom_labels.nii.gz"))
    return path


def write_labels(path, array, names=None, geometry=None):
    """A segmentation with names as .seg.nrrd, or a plain label map without."""
    import SimpleITK as sitk

    from HSAMSegmentLib.volumes.images import image_of
    from HSAMSegmentLib.volumes.segmentation_io import write_segmentation

    array = np.asarray(array, dtype=np.uint8)
    geometry = geometry or Geometry(size=array.shape[::-1], spacing_mm=(1.0, 2.0, 3.0))
    if names is None:
        sitk.WriteImage(image_of(array, geometry), str(path))
    else:
        write_segmentation(Segmentation(array, geometry, label_set_of(names)), path)
    return path


def two_organs():
    array = np.zeros((6, 10, 12), dtype=np.uint8)
    array[1:5, 2:6, 2:6] = 1
    array[2:4, 7:9, 7:11] = 2
    return array


def one_line(done):
    """The one line on stderr that an error is."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("hsam-segment: ")
    return lines[0]


def test_help_is_answered_without_torch_and_names_commands_and_exit_codes(program):
    imports = "import sys, runpy; sys.argv = ['hsam-segment', '--help']\n" + (
        "try: runpy.run_module('HSAMSegmentLib', run_name='__main__')\n"
        "finally: print(sorted({'torch', 'numpy', 'scipy', 'SimpleITK', 'monai'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", imports], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    assert all(
        word in done.stdout for word in ("segment", "evaluate", "models", "doctor", "teach", "exit codes", "130")
    )


@pytest.mark.parametrize("command", ["segment", "evaluate", "models", "doctor", "teach"])
def test_every_command_has_help(program, command):
    done = program(command, "--help")
    assert done.returncode == 0
    assert f"hsam-segment {command}" in done.stdout


def test_the_version_is_the_package_version(program):
    import HSAMSegmentLib

    assert program("--version").stdout.strip() == f"hsam-segment {HSAMSegmentLib.__version__}"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["COMMAND"]),
        (["segmnt"], ["segmnt", "Did you mean segment?"]),
        (["segment", "a.nii"], ["-o/--output"]),
        (["segment", "a.nii", "-o", "b.nii", "--devise", "cpu"], ["--devise", "Did you mean --device?"]),
        (["segment", "a.nii", "-o", "b.nii", "--roi", "1,2,3"], ["--roi", "i0,i1,j0,j1,k0,k1"]),
        (["segment", "a.nii", "-o", "b.nii", "--roi", "5,5,0,1,0,1"], ["--roi", "empty"]),
        (["segment", "a.nii", "-o", "b.nii", "--batch-size", "0"], ["--batch-size", "whole number"]),
        (["segment", "none.nii", "-o", "b.nii"], ["none.nii"]),
        (["evaluate", "a", "b", "--convention", "theirs"], ["--convention", "hsam"]),
        (["evaluate", "a", "b", "--names", "liver"], ["--names", "VALUE=NAME"]),
        (["teach", "--case", "a.nii", "-o", "m.safetensors"], ["--case", "2 arguments"]),
        (["teach", "--case", "a", "b", "-o", "m.pth"], [".safetensors"]),
        (["teach", "--case", "a", "b", "-o", "m.safetensors"], ["There is no file a"]),
        (["teach", "--case", "a", "b", "-o", "m.safetensors", "--minutes", "1", "--epochs", "2"], ["not allowed with"]),
        (["models", "lst"], ["lst", "Did you mean list?"]),
    ],
)
def test_wrong_arguments_are_answered_in_one_line_with_exit_code_2(program, arguments, parts):
    done = program(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert all(part in one_line(done) for part in parts)


def test_evaluate_prints_a_table_and_writes_json(program):
    array = two_organs()
    prediction = write_labels(program.folder / "prediction.seg.nrrd", array, {1: "liver", 2: "spleen"})
    moved = np.roll(array, 1, axis=2)
    reference = write_labels(program.folder / "reference.seg.nrrd", moved, {1: "liver", 2: "spleen"})
    done = program("evaluate", prediction, reference, "--json", "numbers.json")
    assert done.returncode == 0, done.stderr
    assert "HD95 mm" in done.stdout
    data = json.loads((program.folder / "numbers.json").read_text())
    scores = {item["name"]: item for item in data["structures"]}
    assert scores["liver"]["dice"] == pytest.approx(0.75)
    assert scores["spleen"]["dice"] == pytest.approx(0.75)
    assert f"{scores['liver']['hd95']:.2f}" in done.stdout
    assert data["unit"] == "mm"


def test_evaluate_gives_the_papers_numbers_if_asked_for(program):
    array = two_organs()
    prediction = write_labels(program.folder / "p.nii.gz", array)
    reference = write_labels(program.folder / "r.nii.gz", np.where(array == 1, 1, 0))
    ours = program("evaluate", prediction, reference, "--json", "ours.json")
    papers = program("evaluate", prediction, reference, "--convention", "hsam", "--json", "papers.json")
    assert ours.returncode == papers.returncode == 0
    assert "false alarm" in ours.stdout
    assert json.loads((program.folder / "ours.json").read_text())["mean"]["dice"] == 0.5
    assert json.loads((program.folder / "papers.json").read_text())["mean"]["dice"] == 1.0


def test_evaluate_names_the_values_of_label_maps(program):
    array = two_organs()
    prediction = write_labels(program.folder / "p.seg.nrrd", array, {1: "spleen", 2: "liver"})
    reference = write_labels(program.folder / "r.nii.gz", array)
    done = program("evaluate", prediction, reference, "--names", "1=spleen,2=liver", "--organs", "liver")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["structure", "liver", "mean"]


@pytest.mark.parametrize(
    ("prediction", "code", "part"),
    [("none.nii.gz", 3, "none.nii.gz"), ("text.nii.gz", 3, "text.nii.gz"), ("elsewhere.nii.gz", 3, "overlap")],
)
def test_evaluate_refuses_what_it_cannot_compare(program, prediction, code, part):
    (program.folder / "text.nii.gz").write_text("this is no image")
    far = Geometry(size=(12, 10, 6), origin_mm=(900.0, 0.0, 0.0))
    write_labels(program.folder / "elsewhere.nii.gz", two_organs(), geometry=far)
    write_labels(program.folder / "r.nii.gz", two_organs())
    done = program("evaluate", prediction, "r.nii.gz")
    assert done.returncode == code
    assert part in one_line(done)


def test_nothing_is_overwritten_unless_told(program):
    array = two_organs()
    for name in ("p.nii.gz", "r.nii.gz"):
        write_labels(program.folder / name, array)
    (program.folder / "numbers.json").write_text("mine")
    done = program("evaluate", "p.nii.gz", "r.nii.gz", "--json", "numbers.json")
    assert done.returncode == 8
    assert "numbers.json" in one_line(done)
    assert (program.folder / "numbers.json").read_text() == "mine"
    assert program("evaluate", "p.nii.gz", "r.nii.gz", "--json", "numbers.json", "--overwrite").returncode == 0
    assert json.loads((program.folder / "numbers.json").read_text())["mean"]["dice"] == 1.0


def test_quiet_says_nothing(program):
    for name in ("p.nii.gz", "r.nii.gz"):
        write_labels(program.folder / name, two_organs())
    done = program("evaluate", "p.nii.gz", "r.nii.gz", "--quiet", "--json", "n.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (program.folder / "n.json").is_file()


def test_a_reader_that_goes_away_is_no_traceback(program):
    names = {value: f"organ {value} of many" for value in range(1, 200)}
    array = np.arange(200, dtype=np.uint8).reshape(2, 10, 10)
    write_labels(program.folder / "p.seg.nrrd", array, names)
    command = [sys.executable, "-m", "HSAMSegmentLib", "evaluate", "p.seg.nrrd", "p.seg.nrrd"]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, cwd=program.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals to test with")
def test_a_terminal_gets_a_progress_bar_and_a_pipe_does_not(program):
    import fcntl
    import pty
    import struct
    import termios

    write_labels(program.folder / "p.nii.gz", two_organs())
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    command = [sys.executable, "-m", "HSAMSegmentLib", "evaluate", "p.nii.gz", "p.nii.gz"]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=program.folder, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environ, check=False
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "Comparing" in shown
    assert "%|" in shown
    assert "Comparing" not in done.stdout
    assert program("evaluate", "p.nii.gz", "p.nii.gz").stderr == ""


def test_models_lists_what_the_catalog_knows(program):
    done = program("models")
    assert done.returncode == 0
    assert "sam_vit_b" in done.stdout
    listed = json.loads(program("models", "list", "--json").stdout)
    assert {"id", "license", "status", "size_bytes"} <= set(listed[0])
    assert "sam_vit_b" in [item["id"] for item in listed]


def test_models_shows_size_and_license(program):
    done = program("models", "show", "sam_vit_b")
    assert "375.0 MB" in done.stdout
    assert "Apache-2.0" in done.stdout
    assert json.loads(program("models", "show", "sam_vit_b", "--json").stdout)["license"]["name"] == "Apache-2.0"


def test_an_unknown_model_is_answered_with_similar_ids(program):
    done = program("models", "show", "sam_vit_c")
    assert done.returncode == 5
    assert "sam_vit_b" in one_line(done)


def test_a_download_needs_a_yes_and_shows_the_license_before(program, home):
    done = program("models", "download", "sam_vit_b", stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert "Apache-2.0" in done.stderr
    assert "375.0 MB" in done.stderr
    assert not home.exists()


@pytest.mark.slow
def test_a_model_is_imported_used_by_its_name_exported_and_removed(program, model_file, home):
    done = program("models", "import", model_file)
    assert done.returncode == 0, done.stderr
    assert "brightness" in done.stdout
    entry = next(item for item in json.loads(program("models", "--json").stdout) if item["id"] == "brightness")
    assert entry["status"] == "stored"
    assert program("models", "export", "brightness", "copy.safetensors").returncode == 0
    assert (program.folder / "copy.safetensors").read_bytes() == model_file.read_bytes()
    assert program("models", "export", "brightness", "copy.safetensors").returncode == 8
    assert program("models", "remove", "brightness").returncode == 0
    assert program("models", "show", "brightness").returncode == 5
    assert program("models", "remove", "brightness").returncode == 5


def test_a_file_that_is_no_model_is_not_imported(program, home):
    (program.folder / "notes.safetensors").write_text("this is no model")
    done = program("models", "import", "notes.safetensors")
    assert done.returncode == 4
    assert "notes.safetensors" in one_line(done)
    assert not list(home.rglob("*.safetensors"))


@pytest.mark.slow
def test_the_doctor_runs_the_devices_and_reports_as_json(program):
    done = program("doctor", "--json")
    checks = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    names = [check["name"] for check in checks]
    assert {"program", "packages", "memory", "models", "torch", "device cpu"} <= set(names)
    assert next(check for check in checks if check["name"] == "device cpu")["ok"]
    assert all(check["ok"] or check["advice"] for check in checks if not check["name"].startswith("device"))


@pytest.mark.slow
def test_the_doctor_says_what_to_do_without_torch(program, tmp_path):
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('a library is missing')")
    environ = {**os.environ, "PYTHONPATH": f"{broken.parent}{os.pathsep}{REPOSITORY}"}
    done = subprocess.run(
        [sys.executable, "-m", "HSAMSegmentLib", "doctor"], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 7
    line = next(line for line in done.stdout.splitlines() if "torch: " in line)
    assert line.startswith("warn")
    assert "a library is missing" in line
    assert "pip install" in line


@pytest.mark.slow
def test_segment_writes_segmentation_picture_and_report_and_prints_the_organs(program, scan, model_file):
    outputs = ("-o", "out.seg.nrrd", "--preview", "out.png", "--report", "out.json")
    done = program("segment", scan, *outputs, "--model", model_file, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["organ", "mL", "confidence"]
    assert "bright left" in done.stdout
    report = json.loads((program.folder / "out.json").read_text())
    assert [item["name"] for item in report["labels"]] == ["bright left", "bright right", "gray"]
    assert (program.folder / "out.png").read_bytes().startswith(b"\x89PNG")
    again = program("segment", scan, *outputs, "--model", model_file)
    assert again.returncode == 8
    assert "exists" in one_line(again)
    compared = program("evaluate", "out.seg.nrrd", "out.seg.nrrd")
    assert compared.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--organs", "liver"], 2, "bright left, bright right, gray"),
        (["--device", "gpu"], 7, "gpu"),
        (["--roi", "0,10,0,10,0,99"], 2, "region"),
        (["--model", "nothing_like_it"], 5, "nothing_like_it"),
        (["-o", "out.bmp"], 8, "out.bmp"),
        (["-o", "no_folder/out.nii.gz"], 8, "no_folder"),
    ],
)
def test_segment_refuses_what_makes_no_sense_and_leaves_nothing(program, scan, model_file, arguments, code, part):
    done = program("segment", scan, "-o", "out.nii.gz", "--model", model_file, "--quiet", *arguments)
    assert done.returncode == code
    assert part in one_line(done)
    assert list(program.folder.iterdir()) == []


@pytest.mark.slow
def test_a_scan_that_is_none_has_its_exit_code(program, model_file):
    (program.folder / "scan.nii.gz").write_text("this is no image")
    done = program("segment", "scan.nii.gz", "-o", "out.nii.gz", "--model", model_file, "--quiet")
    assert done.returncode == 3
    assert "scan.nii.gz" in one_line(done)


@pytest.mark.slow
def test_debug_shows_the_traceback_before_the_line(program, model_file):
    (program.folder / "scan.nii.gz").write_text("this is no image")
    done = program("segment", "scan.nii.gz", "-o", "out.nii.gz", "--model", model_file, "--debug")
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("hsam-segment: ")


def test_arguments_for_one_scan_and_for_a_folder_are_not_mixed(program):
    (program.folder / "scans").mkdir()
    (program.folder / "scan.nii.gz").write_text("")
    done = program("segment", "scans", "-o", "results", "--preview", "p.png")
    assert done.returncode == 2
    assert "--previews" in one_line(done)
    done = program("segment", "scan.nii.gz", "-o", "out.nii.gz", "--previews")
    assert done.returncode == 2
    assert "--previews" in one_line(done)


@pytest.mark.slow
def test_a_folder_of_scans_is_finished_around_a_bad_one_and_not_done_twice(program, scan, model_file):
    scans = program.folder / "scans"
    scans.mkdir()
    shutil.copy(scan, scans / "good.nii.gz")
    (scans / "bad.nii.gz").write_text("this is no image")
    arguments = ("segment", "scans", "-o", "results", "--model", model_file, "--previews", "--format", ".nii.gz")
    done = program(*arguments)
    assert done.returncode == 3, done.stderr
    written = sorted(path.name for path in (program.folder / "results").iterdir())
    expected = ["good.labels.json", "good.nii.gz", "good.preview.png", "good.report.json", "summary.csv"]
    assert written == expected
    assert "1 done, 0 done before, 1 failed" in done.stderr
    again = program(*arguments)
    assert again.returncode == 3
    assert "0 done, 1 done before, 1 failed" in again.stderr
    assert "bad" in (program.folder / "results" / "summary.csv").read_text()


@pytest.mark.slow
def test_a_model_is_taught_and_then_segments(program, scan, model_file):
    labels = scan.parent / "phantom_labels.nii.gz"
    case = ("--case", scan, labels)
    names = ("--names", "1=liver,2=right kidney,3=left kidney,4=spleen")
    options = ("--start-from", model_file, "--epochs", 1, "--report", "taught.json", "--plot", "taught.png")
    done = program("teach", *case, "-o", "taught.safetensors", *names, *options)
    assert done.returncode == 0, done.stderr
    assert "taught.safetensors" in done.stdout
    assert json.loads((program.folder / "taught.json").read_text())["path"].endswith("taught.safetensors")
    assert (program.folder / "taught.png").read_bytes().startswith(b"\x89PNG")
    again = program("teach", *case, "-o", "taught.safetensors", *names, *options)
    assert again.returncode == 8
    used = program("segment", scan, "-o", "out.nii.gz", "--model", "taught.safetensors")
    assert used.returncode == 0, used.stderr
    assert [line.split("  ")[0] for line in used.stdout.splitlines()[1:]] == [
        "liver",
        "right kidney",
        "left kidney",
        "spleen",
    ]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to send Ctrl-C to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_ctrl_c_leaves_no_file_and_exits_with_130(program, home, model_file, number):
    import SimpleITK as sitk

    large = np.random.default_rng(0).integers(0, 1000, (400, 128, 128)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(large), str(program.folder / "scan.mha"))
    command = [sys.executable, "-m", "HSAMSegmentLib", "segment", "scan.mha", "-o", "out.seg.nrrd"]
    command += ["--preview", "out.png", "--report", "out.json", "--model", str(model_file), "--batch-size", "1"]
    with subprocess.Popen(
        command, cwd=program.folder, env=environment(home), stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.startswith("Segmenting"):
                break
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.strip().splitlines()[-1] == "hsam-segment: Cancelled."
    assert [path.name for path in program.folder.iterdir()] == ["scan.mha"]
