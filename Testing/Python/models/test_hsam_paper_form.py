"""H-SAM's "paper" form: the gate is alive, balances classes in training, and starts where the released form is."""

from __future__ import annotations

import pytest
import torch

from HSAMSegmentLib.models.heads.hsam import HsamHead
from HSAMSegmentLib.models.heads.hsam_decoders import ClassGate, noise_strengths
from HSAMSegmentLib.models.interface import Features

SMALL = {"num_classes": 3, "embed_dim": 32, "mlp_dim": 48, "num_heads": 4, "gate_dim": 16}


@pytest.fixture
def head():
    torch.manual_seed(0)
    return HsamHead(form="paper", **SMALL).eval()


@pytest.fixture
def features():
    return Features(torch.randn(2, 32, 6, 6, generator=torch.Generator().manual_seed(1)))


@pytest.fixture
def similarities():
    return 5 * torch.randn(2, 4, 36, generator=torch.Generator().manual_seed(2))


def _gate(**options):
    torch.manual_seed(3)
    return ClassGate(num_masks=4, embed_dim=32, gate_dim=16, **options)


def _observed_noise(gate, similarities, labels):
    """What a training step adds to the similarities: read where the gate lifts them."""
    seen = []
    with torch.no_grad(), gate.lift.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        gate(similarities, labels)
    return seen[0].transpose(1, 2) - similarities * gate.scale


def test_a_new_gate_enlarges_every_position_about_as_the_released_form_does(similarities):
    gate = _gate().eval()(similarities)
    assert gate.shape == (2, 36, 1)
    assert (gate - 1).abs().max() < 0.25


def test_a_gate_can_neither_silence_nor_blow_up_a_position(similarities):
    gate = _gate().eval()
    gate.to_gate.weight.data.mul_(1e4)
    values = gate(similarities)
    assert values.min() >= 0
    assert values.max() <= 2
    assert values.max() - values.min() > 1.5


def test_the_gate_differs_between_positions_and_changes_the_second_stage_only(head, features):
    with torch.no_grad():
        before = head(features).stages
        head.gate.to_gate.weight.mul_(50)
        after = head(features).stages
    assert torch.equal(before[0], after[0])
    assert (before[1] - after[1]).abs().max() > 1e-2


def test_every_part_of_the_gate_is_trained(head, features):
    head(features).stages[1].square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in head.gate.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    untrained = [name for name, gradient in gradients.items() if not gradient.abs().max() > 0]
    assert untrained == []


def test_the_gate_trains_the_first_decoder_too(head, features):
    gates = []
    head.gate.register_forward_hook(lambda *call: gates.append(call[2]))
    head(features)
    (gradient,) = torch.autograd.grad(gates[0].sum(), head.decoder1.mask_tokens)
    assert gradient.abs().max() > 0


def test_the_released_form_has_no_gate(features):
    torch.manual_seed(0)
    head = HsamHead(form="released", **SMALL).eval()
    assert not [key for key in head.state_dict() if key.startswith("gate")]


def test_evaluation_is_free_of_noise(head, features):
    labels = torch.randint(0, 4, (2, 96, 96))
    with torch.no_grad():
        first, second, unlabeled = head(features, labels), head(features, labels), head(features)
    for a, b, c in zip(first.stages, second.stages, unlabeled.stages):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_training_disturbs_the_second_stage_only(head, features):
    head.train()
    with torch.no_grad():
        first, second = head(features), head(features)
    assert torch.equal(first.stages[0], second.stages[0])
    assert (first.stages[1] - second.stages[1]).abs().max() > 1e-3


def test_training_without_any_noise_is_evaluation(features):
    torch.manual_seed(0)
    head = HsamHead(form="paper", dropout=0, embedding_noise=0, label_noise=0, **SMALL)
    with torch.no_grad():
        trained, evaluated = head.train()(features), head.eval()(features)
    for a, b in zip(trained.stages, evaluated.stages):
        assert torch.equal(a, b)


def test_rare_classes_get_more_noise():
    strengths = noise_strengths(torch.tensor([0.9, 0.08, 0.015, 0.005]))
    assert strengths[-1] == 1
    assert (strengths.diff() > 0).all()
    assert strengths[0] < 0.05


@pytest.mark.parametrize("classes", [2, 4, 9, 30])
def test_equally_common_classes_get_the_same_noise(classes):
    assert torch.allclose(noise_strengths(torch.full((classes,), 1 / classes)), torch.ones(classes))


def test_positions_of_a_rare_class_are_disturbed_more_than_those_of_a_common_one(similarities):
    gate = _gate(label_noise=0.5).train()
    gate.class_frequency.copy_(torch.tensor([0.9, 0.05, 0.04, 0.01]))
    labels = torch.tensor([0, 3]).repeat(2, 18)
    noise = _observed_noise(gate, similarities, labels)
    common, rare = noise[:, :, 0::2].std().item(), noise[:, :, 1::2].std().item()
    assert 0 < common < 0.1 * rare
    assert rare == pytest.approx(0.5 * (similarities * gate.scale).std().item(), rel=0.3)


def test_positions_without_a_class_get_no_noise(similarities):
    labels = torch.tensor([255, 1, -1]).repeat(2, 12)
    noise = _observed_noise(_gate().train(), similarities, labels)
    assert noise[:, :, 0::3].abs().max() == 0
    assert noise[:, :, 2::3].abs().max() == 0
    assert noise[:, :, 1::3].abs().min() > 0


def test_how_rare_a_class_is_is_learned_in_training_only(similarities):
    gate = _gate()
    labels = torch.tensor([0, 0, 0, 1, 255, 255]).repeat(2, 6)
    gate.eval()(similarities, labels)
    assert torch.allclose(gate.class_frequency, torch.full((4,), 0.25))
    gate.train()
    for _ in range(400):
        gate(similarities, labels)
    assert torch.allclose(gate.class_frequency, torch.tensor([0.75, 0.25, 0, 0]), atol=1e-3)


def test_labels_reach_the_grid_by_nearest_neighbor(features):
    head = HsamHead(form="paper", **SMALL).train()
    cells = torch.arange(36).view(1, 6, 6).repeat(2, 1, 1) % 4
    seen = []
    head.gate.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    head(features, cells.repeat_interleave(16, 1).repeat_interleave(16, 2).to(torch.uint8))
    assert torch.equal(seen[0], cells.flatten(1))


def test_without_labels_the_first_stage_says_where_the_noise_goes(features):
    head = HsamHead(form="paper", **SMALL).train()
    seen = []
    head.gate.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    head(features)
    assert seen[0].shape == (2, 36)
    assert seen[0].max() < 4


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("side", [3, 8])
def test_any_number_of_classes_and_any_image_size(classes, side):
    head = HsamHead(form="paper", **{**SMALL, "num_classes": classes}).train()
    stages = head(Features(torch.randn(1, 32, side, side)), torch.zeros(1, 50, 70, dtype=torch.uint8)).stages
    assert [tuple(stage.shape) for stage in stages] == [
        (1, classes + 1, 4 * side, 4 * side),
        (1, classes + 1, 16 * side, 16 * side),
    ]
