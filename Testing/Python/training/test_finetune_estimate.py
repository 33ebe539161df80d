"""What a fine-tuning is said to need, against what one really writes and takes."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from finetune_fixtures import small_request
from model_files import TINY_ENCODER
from small_cases import small_case
from untrained_model import write_untrained_model

from HSAMSegmentLib.models.building import build_encoder, build_network
from HSAMSegmentLib.models.sizes import encoder_weights, encoding_bytes, head_weights
from HSAMSegmentLib.models.specification import HEADS, Architecture, EncoderSpec
from HSAMSegmentLib.training.data.sampling import hold_out_blocks
from HSAMSegmentLib.training.data.slice_bank import build_slice_bank
from HSAMSegmentLib.training.features import feature_cache
from HSAMSegmentLib.training.features.token_subset import scattered_shape
from HSAMSegmentLib.training.recipe import make_recipe
from HSAMSegmentLib.training.request import FinetuneRequest
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.finetune.cost_estimate import (
    CACHE_BYTES,
    MOST_VIEWS,
    decoded_cells,
    estimate,
    footprint,
    held_out,
    known_pace,
    note_pace,
)
from HSAMSegmentLib.workflows.finetune.inspect_cases import summarize
from HSAMSegmentLib.workflows.finetune.training_run import PAUSE, TrainingRun
from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord
from HSAMSegmentLib.workflows.run import run

SMALL = EncoderSpec("custom", 64, TINY_ENCODER)


def weights_of(part: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


@pytest.mark.parametrize(
    "spec", [SMALL, replace(SMALL, image_size=224), EncoderSpec("sam_vit_b", 512), EncoderSpec("sam_vit_h", 1024)]
)
def test_the_weights_of_sam_encoders_are_told_exactly(spec):
    with torch.device("meta"):
        assert encoder_weights(spec) == weights_of(build_encoder(spec))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("classes", [1, 7])
def test_the_weights_of_heads_are_told_to_a_hundredth(head, classes):
    architecture = Architecture(SMALL, head, classes, form="paper" if head == "hsam" else "")
    assert head_weights(architecture) == pytest.approx(weights_of(build_network(architecture).head), rel=0.01)


def test_the_compact_network_is_told_to_a_quarter():
    """Its sizes change from version to version, and its head's options with the model."""
    architecture = Architecture(EncoderSpec("compact", 256), "hsam", 4, form="paper", options={"mlp_dim": 256})
    network = build_network(architecture)
    assert encoder_weights(architecture.encoder) == pytest.approx(weights_of(network.encoder), rel=0.25)
    assert head_weights(architecture) == pytest.approx(weights_of(network.head), rel=0.25)


def test_what_the_estimate_assumes_is_what_the_engine_does(data_folder, tmp_path):
    case = small_case(data_folder)
    plan = make_recipe(FinetuneRequest(tmp_path / "m.safetensors", image_size=64), [case], None, 2)
    bank = build_slice_bank(case, slices=plan.slices, intensity=plan.intensity, image_size=64)
    assert held_out(summarize(case).labeled_slices) == len(hold_out_blocks(bank).slices)
    assert (MOST_VIEWS, CACHE_BYTES) == (feature_cache.MOST_VIEWS, feature_cache.DEFAULT_BYTES)
    for size in (64, 256, 512, 1024):
        assert decoded_cells(size) == math.prod(scattered_shape((size // 16, size // 16)))


class Disk:
    """Validator at the files of a training run while it runs, and pauses it at the second look at the validation."""

    def __init__(self, training_run: TrainingRun) -> None:
        self.training_run, self.features, self._records = training_run, 0, 0

    def __call__(self, event: object) -> None:
        kept = [path.stat().st_size for path in self.training_run.folder.glob("hsamsegment-features-*/*.npy")]
        self.features = max(self.features, sum(kept))
        self._records += isinstance(event, ValidationRecord)
        if self._records == 2:
            self.training_run.ask_for(PAUSE)


@pytest.mark.slow
def test_a_finetuning_on_a_small_sam_encoder_writes_what_was_estimated(tmp_path, data_folder, monkeypatch):
    """Kept features to a hundredth, the training state and the model to a tenth."""
    monkeypatch.setenv("HSAMSEGMENT_HOME", str(tmp_path / "store"))
    Store().models_folder.mkdir(parents=True)
    write_untrained_model(Store().models_folder / "tiny.safetensors", modality="MR")
    request = small_request(tmp_path, data_folder, minutes=3.0, start_from="tiny")
    training_run = TrainingRun(request.folder)
    run(request, Context(disk := Disk(training_run)))
    assert known_pace(tmp_path / "store", SMALL, "cpu") > 0.0
    architecture = Architecture(SMALL, "linear", 2)
    parts = footprint([summarize(small_case(data_folder))], architecture, includes_encoder=True)
    assert disk.features == pytest.approx(parts.feature_bytes, rel=0.01)
    assert training_run.state_file("small").stat().st_size == pytest.approx(parts.state_bytes, rel=0.1)
    assert training_run.model_file("small").stat().st_size == pytest.approx(parts.model_bytes, rel=0.1)


@pytest.mark.slow
def test_a_finetuning_on_a_small_sam_encoder_takes_about_the_memory_that_was_estimated(tmp_path, data_folder):
    """To a third: most of it is Python with PyTorch, which differs from build to build."""
    case = small_case(data_folder)
    write_untrained_model(tmp_path / "tiny.safetensors", modality="MR")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from small_cases import small_case\n"
        "from HSAMSegmentLib.training.request import FinetuneRequest\n"
        "from HSAMSegmentLib.training.finetune import finetune\n"
        "folder = Path(sys.argv[2])\n"
        "options = FinetuneRequest(folder / 'm.safetensors', start_from=str(folder / 'tiny.safetensors'), epochs=1,\n"
        "                       device='cpu', cache_folder=folder)\n"
        "finetune(options, cases=[small_case(Path(sys.argv[1]))])\n"
        "print(highest())\n"
    )
    needed = estimate(
        [summarize(case)],
        Architecture(SMALL, "linear", 2),
        includes_encoder=True,
        copied_bytes=0,
        minutes=1.0,
        scratch=tmp_path,
    )
    assert taken_by(code, str(data_folder), str(tmp_path)) == pytest.approx(needed.memory_bytes, rel=0.34)


@pytest.mark.slow
def test_encoding_works_in_about_the_memory_that_was_estimated():
    """To a half and to twice as much: what the processor's libraries take differs from build to build."""
    spec = EncoderSpec("custom", 512, {"embed_dim": 384, "depth": 2, "num_heads": 6, "global_attn_indexes": [1]})
    code = (
        "import torch\n"
        "from HSAMSegmentLib.models.specification import EncoderSpec\n"
        "from HSAMSegmentLib.models.building import build_encoder\n"
        f"encoder = build_encoder(EncoderSpec('custom', 512, {spec.options!r})).eval()\n"
        "images = torch.rand(1, 3, 512, 512)\n"
        "before = highest()\n"
        "with torch.no_grad():\n"
        "    encoder(images)\n"
        "print(highest() - before)\n"
    )
    assert 0.5 < taken_by(code) / encoding_bytes(spec) < 2.0


def taken_by(code: str, *arguments: str) -> int:
    """Bytes that a program of its own prints; `highest()` is the most memory that it has had so far."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("only Linux tells the highest memory of a process in /proc")
    head = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parents[3])]!r}\n"
        "def highest():\n"
        "    (line,) = [line for line in open('/proc/self/status') if line.startswith('VmHWM')]\n"
        "    return 1024 * int(line.split()[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", head + code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


def test_how_long_encoding_takes_is_known_from_the_last_time(data_folder, tmp_path):
    note_pace(tmp_path, SMALL, "cpu", 6.0)
    note_pace(tmp_path, SMALL, "cuda", 0.01)
    seconds = {device: known_pace(tmp_path, SMALL, device) for device in ("cpu", "cuda", "auto")}
    assert seconds == {"cpu": 6.0, "cuda": 0.01, "auto": None}
    assert known_pace(tmp_path, replace(SMALL, image_size=128), "cpu") is None
    options = {"includes_encoder": True, "copied_bytes": 0, "minutes": 1.0, "scratch": tmp_path}
    cases, architecture = [summarize(small_case(data_folder))], Architecture(SMALL, "linear", 2)
    slow = estimate(cases, architecture, encoding_seconds=seconds["cpu"], **options).sentence
    assert "6.0 s for a slice" in slow
    assert "about 4 of 14 slices; for all of them, give it 4 min" in slow
    assert "takes 0.0 min of that" in estimate(cases, architecture, encoding_seconds=0.01, **options).sentence
    assert "the last time" not in estimate(cases, architecture, **options).sentence
    (tmp_path / "encoding-paces.json").write_text("no json")
    assert known_pace(tmp_path, SMALL, "cpu") is None


def test_a_disk_without_room_for_one_view_of_each_slice_is_a_problem_and_one_with_less_room_than_for_all_is_none(
    data_folder, tmp_path
):
    found = estimate(
        [summarize(small_case(data_folder))],
        Architecture(replace(SMALL, image_size=512), "linear", 2),
        includes_encoder=True,
        copied_bytes=0,
        minutes=5.0,
        scratch=tmp_path,
    )
    assert found.least_disk_bytes < found.disk_bytes
    between = (found.least_disk_bytes + found.disk_bytes) / 2
    assert replace(found, free_disk_bytes=between).problem == ""
    assert "Free some space" in replace(found, free_disk_bytes=found.least_disk_bytes - 1).problem
    assert "5 min in all" in found.sentence
