"""What a new network takes over: classes follow their names, everything else its shape."""

from __future__ import annotations

import pytest
import torch

from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.training.initialization import class_map, transfer

OLD = label_set_of({1: "liver", 2: "spleen", 3: "aorta"})
NEW = label_set_of({1: "Spleen", 2: "tumor"})


def network(classes: int, seed: int):
    torch.manual_seed(seed)
    options = {"mlp_dim": 64}
    return build_network(Architecture(EncoderSpec("compact", 64), "hsam", classes, form="paper", options=options))


@pytest.fixture(scope="module")
def filled():
    old, new = network(3, 0), network(2, 1)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    report = transfer(old.state_dict(), new, old_labels=OLD, new_labels=NEW)
    return old.state_dict(), before, new.state_dict(), report


def test_labels_are_the_same_when_their_names_are():
    assert class_map(OLD, NEW) == {0: 0, 1: 2}
    assert class_map(None, NEW) == {0: 0}


def test_the_encoder_is_taken_as_it_is(filled):
    old, _, new, _ = filled
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items() if name.startswith("encoder."))


def test_tokens_and_perceptrons_of_common_classes_move_to_their_new_place(filled):
    old, _, new, _ = filled
    assert torch.equal(new["head.decoder1.mask_tokens"][1], old["head.decoder1.mask_tokens"][2])
    assert torch.equal(new["head.decoder1.mask_tokens"][0], old["head.decoder1.mask_tokens"][0])
    moved = "head.decoder2.hypernetworks.{}.layers.0.weight"
    assert torch.equal(new[moved.format(1)], old[moved.format(2)])


def test_the_gate_reads_common_classes_as_before_and_new_ones_not_yet(filled):
    old, _, new, _ = filled
    columns, before = new["head.gate.lift.weight"], old["head.gate.lift.weight"]
    assert torch.equal(columns[:, :2], before[:, [0, 2]])
    assert not columns[:, 2].any()


def test_what_belongs_to_a_new_class_keeps_its_initial_values(filled):
    _, before, new, _ = filled
    assert torch.equal(new["head.decoder1.mask_tokens"][2], before["head.decoder1.mask_tokens"][2])
    fresh = "head.decoder2.hypernetworks.2.layers.0.weight"
    assert torch.equal(new[fresh], before[fresh])


def test_every_tensor_is_accounted_for_and_the_sentence_names_what_is_known(filled):
    _, before, _, report = filled
    assert len(report.taken) + len(report.by_class) + len(report.new) == len(before)
    assert report.common_labels == ("Spleen",)
    assert "Spleen" in report.sentence
    assert "tumor" not in report.sentence
