"""Kept features: what was written is read back, within a bound, and nothing stays behind on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from small_cases import small_case

from HSAMSegmentLib.errors import OutputError
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.training.data.augment import AugmentRule
from HSAMSegmentLib.training.data.batches import TrainingSet
from HSAMSegmentLib.training.data.sampling import BalancedSampler, ValidationSet
from HSAMSegmentLib.training.data.slice_bank import build_slice_bank
from HSAMSegmentLib.training.features.adaptation import FROZEN, LORA, SplitNetwork, set_trainable
from HSAMSegmentLib.training.features.cached_features import (
    CachedFeatureBatches,
    CachedFeatures,
    CacheOptions,
    UnlimitedEncoding,
)
from HSAMSegmentLib.training.features.feature_cache import PREFIX, CacheOwner, FeatureCache, affordable_views

CPU = torch.device("cpu")
TINY_VIT = {"embed_dim": 32, "depth": 3, "num_heads": 2, "global_attn_indexes": [2]}


def test_features_and_labels_come_back_as_they_were_to_float16(tmp_path):
    with FeatureCache(5, [(4, 3, 3), (2, 6, 6)], (12, 12), parent=tmp_path) as cache:
        features = (torch.randn(2, 4, 3, 3), torch.randn(2, 2, 6, 6))
        labels = torch.randint(0, 256, (2, 12, 12))
        cache.write(3, features, labels)
        found, looked_up = cache.read([4, 3])
    for written, read in zip(features, found):
        torch.testing.assert_close(read, written.flip(0), atol=1e-3, rtol=1e-3)
    assert torch.equal(looked_up, labels.flip(0))


def test_values_beyond_float16_stay_finite(tmp_path):
    with FeatureCache(1, [(1, 1, 1)], (1, 1), parent=tmp_path) as cache:
        cache.write(0, [torch.full((1, 1, 1, 1), 1e6)], torch.zeros(1, 1, 1))
        assert torch.isfinite(cache.read([0])[0][0]).all()


def test_the_folder_is_gone_after_use_even_after_an_error(tmp_path):
    def use_and_fail() -> None:
        with FeatureCache(2, [(1, 2, 2)], (4, 4), parent=tmp_path):
            assert any(tmp_path.iterdir())
            raise ValueError("something else went wrong")

    with pytest.raises(ValueError, match="something else"):
        use_and_fail()
    assert not any(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_away_with_the_next_cache(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"{PREFIX}{ended.pid}-old").mkdir()
    mine = tmp_path / f"{PREFIX}{os.getpid()}-running"
    mine.mkdir()
    FeatureCache(1, [(1, 1, 1)], (1, 1), parent=tmp_path).close()
    assert list(tmp_path.iterdir()) == [mine]


def as_if_killed(cache: FeatureCache) -> None:
    """Make the owner look like a process that is gone."""
    facts = json.loads((cache.folder / "owner.json").read_text())
    (cache.folder / "owner.json").write_text(json.dumps({**facts, "started": 0.0}))


def test_a_training_that_can_be_resumed_finds_its_cache_again_and_another_does_not(tmp_path):
    owner = CacheOwner("key", tmp_path / "state")
    owner.state.write_bytes(b"a training")
    cache = FeatureCache(3, [(2, 2, 2)], (4, 4), parent=tmp_path, owner=owner)
    cache.write(0, [torch.ones(2, 2, 2, 2)], torch.full((2, 4, 4), 7))
    cache.note({"done": 2})
    as_if_killed(cache)
    FeatureCache(1, [(1, 1, 1)], (1, 1), parent=tmp_path).close()
    assert FeatureCache.adopt(CacheOwner("other", owner.state), tmp_path) is None
    found, journal = FeatureCache.adopt(owner, tmp_path)
    assert journal == {"done": 2}
    features, labels = found.read([1])
    assert bool((features[0] == 1).all())
    assert bool((labels == 7).all())
    assert FeatureCache.adopt(owner, tmp_path) is None
    found.close()
    assert list(tmp_path.iterdir()) == [owner.state]


def test_a_cache_whose_training_is_gone_goes_away_with_the_next_one(tmp_path):
    owner = CacheOwner("key", tmp_path / "state")
    as_if_killed(FeatureCache(1, [(1, 1, 1)], (1, 1), parent=tmp_path, owner=owner))
    FeatureCache(1, [(1, 1, 1)], (1, 1), parent=tmp_path).close()
    assert not any(tmp_path.iterdir())


def test_more_than_the_disk_holds_is_refused_before_the_first_byte(tmp_path):
    with pytest.raises(OutputError, match="free"):
        FeatureCache(1 << 40, [(256, 64, 64)], (1024, 1024), parent=tmp_path)
    assert not any(tmp_path.iterdir())


def test_the_number_of_views_follows_the_bound():
    assert affordable_views(10, 1000, capacity_bytes=50_000) == 5
    assert affordable_views(10, 1000, capacity_bytes=100) == 1
    assert affordable_views(1, 1, capacity_bytes=1 << 40) == 12


def _draw(data_folder) -> TrainingSet:
    case = small_case(data_folder)
    rule = SliceRule(framing="spacing", pixel_spacing_mm=2.5)
    bank = build_slice_bank(case, slices=rule, intensity=IntensityRule(), image_size=64)
    return TrainingSet((bank,), BalancedSampler([bank], num_classes=2), AugmentRule(), 64, 3)


def cached_features(split, draw: TrainingSet, rules: CacheOptions, held=()) -> CachedFeatures:
    return CachedFeatures(split, draw, held, CPU, torch.Generator().manual_seed(0), rules)


@pytest.mark.parametrize(
    ("adaptation", "encoder", "rank"),
    [
        (FROZEN, EncoderSpec("compact", 64), 0),
        (FROZEN, EncoderSpec("custom", 64, TINY_VIT), 0),
        (LORA, EncoderSpec("custom", 64, TINY_VIT), 4),
    ],
)
def test_logits_from_cached_features_are_those_of_the_whole_network(data_folder, tmp_path, adaptation, encoder, rank):
    torch.manual_seed(0)
    blocks = 2 if rank else None
    network = build_network(Architecture(encoder, "linear", 2, lora_rank=rank, lora_blocks=blocks)).eval()
    set_trainable(network, adaptation)
    draw = _draw(data_folder)
    split = SplitNetwork(network, adaptation)
    features = cached_features(split, draw, CacheOptions(capacity_bytes=14 * 2 * (1 << 20), parent=tmp_path))
    batches = CachedFeatureBatches(split, draw, CPU, features)
    item = features.items[5]
    kept, labels = features.cache.read([5])
    images = draw.banks[0].inputs([item.slice_index])
    with torch.inference_mode():
        expected = network(images).stages[-1]
        found = split.trained_part(kept, labels).stages[-1]
    assert torch.equal(labels, draw.banks[0].targets([item.slice_index]).long())
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)
    logits, drawn_labels = batches.forward(torch.Generator().manual_seed(1))
    assert logits.stages[-1].requires_grad
    assert drawn_labels.shape == (3, 64, 64)
    batches.close()
    assert not any(tmp_path.iterdir())


class HalfOfTheSlices(UnlimitedEncoding):
    """Time for every other slice, and for three slices to validate on."""

    def enough(self, views: float) -> bool:
        return views >= 0.5

    def validation_inputs(self, seconds: float) -> float:
        return 3


@pytest.fixture
def hurried(data_folder, tmp_path, monkeypatch):
    """Features of a part of the slices, encoded one by one."""
    monkeypatch.setattr("HSAMSegmentLib.training.features.cached_features._PIXELS_AT_ONCE", 64 * 64)
    torch.manual_seed(0)
    network = build_network(Architecture(EncoderSpec("custom", 64, TINY_VIT), "linear", 2)).eval()
    set_trainable(network, FROZEN)
    draw = _draw(data_folder)
    held = ValidationSet(draw.banks[0], tuple(range(1, 13)), "given case")
    rules = CacheOptions(capacity_bytes=1 << 30, parent=tmp_path, limits=HalfOfTheSlices())
    features = cached_features(SplitNetwork(network, FROZEN), draw, rules, (held,))
    yield network, draw, features
    features.close()


def test_slices_there_was_no_time_for_are_never_drawn(hurried):
    network, draw, features = hurried
    assert len(features.cached_items) == 7
    batches = CachedFeatureBatches(SplitNetwork(network, FROZEN), draw, CPU, features)
    assert set(batches.sampler.items) == set(features.cached_items)
    assert all(batches.sampler.by_label)
    for item in features.cached_items:
        _, labels = features.cache.read(features.entries([item], torch.Generator().manual_seed(0)))
        assert torch.equal(labels, draw.banks[0].targets([item.slice_index]).long())


def test_slices_to_validate_on_are_spread_evenly_and_decoded_from_what_was_kept(hurried):
    network, draw, features = hurried
    assert features.validation_sets[0].slices == (3, 7, 11)
    with torch.inference_mode():
        found = features.stages(network, draw.banks[0], [7, 3], CPU)[-1]
        expected = network(draw.banks[0].all_tiles([7, 3])).stages[-1]
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)


def test_every_entry_belongs_to_one_view_of_one_slice(hurried):
    _, _, features = hurried
    entries = [features.entries([item], torch.Generator().manual_seed(1))[0] for item in features.cached_items]
    held = set(features._validation_entries.values())
    assert len(set(entries)) == len(entries)
    assert not held & set(entries)
    assert sorted({*entries, *held}) == list(range(10))
