"""A budget in minutes on slow networks, counted on a clock that only the network moves.

The clock stands still but for the images that go through the encoder's blocks and the head, so the tests say how much
is computed, however fast or busy the machine is.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from small_cases import small_case
from stored_models import encoder_file

from HSAMSegmentLib.training.finetune import train
from HSAMSegmentLib.training.loop.budget import Budget
from HSAMSegmentLib.training.preparation import prepare
from HSAMSegmentLib.training.request import FinetuneRequest, ValidationMetrics
from HSAMSegmentLib.weights.store import HOME_VARIABLE, Store

BLOCKS = 4
HEADS = 20
"""So many runs of the head take as long as one of the encoder."""
LEARNING_FACTOR = 3.0
"""A step forward and back against forward alone."""


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def home(parity_folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    Store(home).import_file(encoder_file(parity_folder, home), model_id="small-sam")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(home))
        yield home


@pytest.fixture(scope="module")
def case(data_folder):
    return small_case(data_folder)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def slowed(network, clock: Clock, seconds_per_image: float) -> None:
    """Let every image take so long in the encoder, and more where gradients are needed."""

    def pass_time(images: int, seconds: float, learns: bool) -> None:
        clock.now += (LEARNING_FACTOR if learns else 1.0) * images * seconds

    for block in network.encoder.blocks:
        block.register_forward_hook(
            lambda module, inputs, output: pass_time(len(output), seconds_per_image / BLOCKS, output.requires_grad)
        )
    network.head.register_forward_hook(
        lambda module, inputs, output: pass_time(
            len(output.stages[0]), seconds_per_image / HEADS, output.stages[0].requires_grad
        )
    )


def finetuned(folder: Path, case, clock: Clock, seconds_per_image: float, validation=None, **options):
    """Fine-tune for a minute on a network that is so slow; the seconds that passed and the looks."""
    validations: list[ValidationMetrics] = []
    settings = {"minutes": 1.0, "device": "cpu", "image_size": 64, "cache_folder": folder, "head": "linear", **options}
    settings.setdefault("encoder", "small-sam")
    request = FinetuneRequest(output=folder / "finetuned.safetensors", **settings)

    def listen(event: object) -> None:
        if isinstance(event, ValidationMetrics):
            validations.append(event)

    budget = Budget(minutes=1.0, clock=clock)
    job = prepare(request, cases=[case], validation=validation, events=listen, budget=budget)
    for network in (job.trainer.network, job.trainer.average.network):
        slowed(network, clock, seconds_per_image)
    result = train(job)
    return clock.now, validations, result


@pytest.mark.parametrize("seconds_per_image", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("lora_blocks", [None, 1, BLOCKS], ids=["frozen", "last block", "all blocks"])
def test_a_minute_is_kept_to_within_a_tenth_on_a_slow_encoder(
    home, case, clock, tmp_path, seconds_per_image, lora_blocks
):
    seconds, validations, result = finetuned(tmp_path, case, clock, seconds_per_image, lora_blocks=lora_blocks)
    assert seconds <= 66.0
    assert seconds >= 45.0 or result.stopped == "no more progress"
    assert result.steps > 0
    assert validations
