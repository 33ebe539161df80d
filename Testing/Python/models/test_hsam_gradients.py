"""One training step of H-SAM, without its noise: loss and gradients against the official ones (parity 9.4)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_networks import golden_network, official_names
from parity_weights import GoldenFile

from HSAMSegmentLib.training.loop.losses import stage_loss
from HSAMSegmentLib.training.loop.optimizer import hsam_last_stage_weight

ROUNDING = 1e-6
# The gradient of a ReLU jumps where its input is zero within rounding, and rounding differs between kinds of CPU: so
# norms agree to 0.2 % and single values to 1 % of the largest of their tensor. A term left out changes more than that.
NORM_TOLERANCE = 2e-3
VALUE_TOLERANCE = 1e-2


@pytest.fixture(scope="module")
def golden(parity_folder):
    golden = GoldenFile(parity_folder / "hsam_tiny_224_gradients.npz")
    golden.meta.update(img_size=224, num_classes=8, rank=5)
    return golden


@pytest.fixture(scope="module")
def step(parity_folder, golden):
    """Losses of both stages, and the gradient of every tensor that has one, by official names."""
    network = golden_network(parity_folder, golden, "hsam")
    stages = network(golden.images()).stages
    labels = [torch.from_numpy(golden[name]) for name in ("labels_low", "labels_full")]
    losses = [stage_loss(stage, label, dice_weight=0.9) for stage, label in zip(stages, labels)]
    weight = hsam_last_stage_weight(0)
    ((1 - weight) * losses[0] + weight * losses[1]).backward()
    names = official_names(parity_folder, "hsam", network)
    parameters = network.named_parameters()
    gradients = {names[key]: value.grad for key, value in parameters if value.requires_grad}
    return losses, gradients


def _once(key):
    """H-SAM's second prompt encoder is its first."""
    return key.replace("prompt_encoder2.", "prompt_encoder.")


def test_the_losses_are_official(golden, step):
    losses, _ = step
    expected = golden.meta["loss"]
    assert losses[0].item() == pytest.approx(expected["loss1"], rel=1e-5)
    assert losses[1].item() == pytest.approx(expected["loss2"], rel=1e-5)


def test_exactly_the_official_tensors_are_trained(golden, step):
    trained = {_once(key) for key, gradient in step[1].items() if gradient is not None}
    expected = {_once(key) for key, value in golden.meta["grad"].items() if value is not None and value["norm"] > 0}
    assert trained == expected


def test_every_gradient_has_the_official_norm(golden, step):
    norms = {_once(key): value.norm().item() for key, value in step[1].items() if value is not None}
    expected = {_once(key): value["norm"] for key, value in golden.meta["grad"].items() if value is not None}
    wrong = {
        key: (norm, expected[key])
        for key, norm in norms.items()
        if norm != pytest.approx(expected[key], rel=NORM_TOLERANCE, abs=ROUNDING)
    }
    assert wrong == {}
    assert sum(norm > ROUNDING for norm in norms.values()) > 300


def test_whole_gradients_are_official(golden, step):
    gradients = {_once(key): value for key, value in step[1].items()}
    stored = [name for name in golden.meta["arrays"] if name.startswith("grad/")]
    assert len(stored) == 9
    for name in stored:
        ours = gradients[name[len("grad/") :]].numpy()
        largest = float(np.abs(golden[name]).max())
        np.testing.assert_allclose(
            ours.reshape(golden[name].shape), golden[name], rtol=0, atol=VALUE_TOLERANCE * largest
        )
