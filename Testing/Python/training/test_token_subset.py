"""Decoding part of an embedding's cells: the same logits there, each cell in its true place."""

from __future__ import annotations

import pytest
import torch

from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.interface import Features
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.training.features.token_subset import (
    RECTANGLE_TOKENS,
    TokenSubset,
    rectangular_subset,
    scattered_shape,
    scattered_subset,
)

GRID = (6, 8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(head: str):
    torch.manual_seed(0)
    form = "paper" if head == "hsam" else ""
    return build_network(Architecture(EncoderSpec("compact", 128), head, 2, form=form)).eval()


def features_for(net) -> Features:
    skips = net.encoder.skip_channels
    return Features(
        torch.randn(2, net.encoder.out_chans, *GRID),
        tuple(torch.randn(2, width, GRID[0] << i, GRID[1] << i) for i, width in enumerate(skips, start=1)),
    )


def all_cells_in_another_order() -> TokenSubset:
    numbers = torch.stack([torch.randperm(48, generator=seeded(view)) for view in range(2)]).view(2, *GRID)
    return TokenSubset(numbers // GRID[1], numbers % GRID[1], GRID)


@pytest.mark.parametrize("head", ["hsam", "samed", "autosam", "linear"])
def test_the_order_of_the_cells_does_not_matter_to_their_logits(head):
    net, cells = network(head), all_cells_in_another_order()
    features = features_for(net)
    labels = torch.randint(0, 3, (2, 96, 128))
    with torch.no_grad():
        whole = net.decode(features, labels).stages
        with cells.placed(net.head):
            parts = net.decode(cells.take_features(features), cells.take_labels(labels)).stages
    for stage, part in zip(whole, parts):
        torch.testing.assert_close(part, cells.take(stage), atol=2e-4, rtol=2e-4)


def test_afterwards_the_head_takes_whole_embeddings_again():
    net, cells = network("autosam"), all_cells_in_another_order()
    features = features_for(net)
    with torch.no_grad():
        before = net.decode(features).stages[0]
        with cells.placed(net.head):
            net.decode(cells.take_features(features))
        assert torch.equal(net.decode(features).stages[0], before)


def test_maps_of_every_resolution_are_taken_at_the_same_places():
    cells = scattered_subset(3, (32, 40), seeded(), torch.device("cpu"))
    rows = torch.arange(32 * 4).view(1, 1, -1, 1).expand(3, 1, -1, 40 * 4)
    found = cells.take(rows)
    assert found.shape == (3, 1, 4 * 16, 4 * 16)
    assert torch.equal(found[:, 0, ::4, ::4] // 4, cells.rows)
    assert torch.equal(found[:, 0, 3::4, ::4], 4 * cells.rows + 3)


def test_scattered_cells_come_one_from_each_tile_and_differ_from_view_to_view():
    cells = scattered_subset(4, (32, 32), seeded(), torch.device("cpu"))
    tiles = torch.arange(16)
    assert bool((cells.rows // 2 == tiles[:, None]).all())
    assert bool((cells.columns // 2 == tiles).all())
    assert not torch.equal(cells.rows[0], cells.rows[1])
    drawn = torch.zeros(32, 32)
    for seed in range(40):
        cells = scattered_subset(1, (32, 32), seeded(seed), torch.device("cpu"))
        drawn.view(-1)[cells.index] += 1
    assert int(drawn.min()) >= 1


def test_of_larger_grids_a_smaller_part_is_decoded():
    assert [scattered_shape((side, side))[0] for side in (8, 16, 32, 64)] == [8, 16, 16, 24]


def test_a_grid_that_is_no_larger_is_taken_whole_and_in_order():
    cells = scattered_subset(2, (14, 16), seeded(), torch.device("cpu"))
    assert torch.equal(cells.index[0], torch.arange(14 * 16))


def test_rectangles_lie_inside_and_most_hold_something_labeled():
    labels = torch.zeros(200, 512, 512, dtype=torch.uint8)
    labels[:, 500:, 500:] = 1
    cells = rectangular_subset(labels, (32, 32), seeded())
    assert cells.rows.shape == (200, *RECTANGLE_TOKENS)
    assert int(cells.rows.max()) <= 31
    assert bool((cells.columns.diff(dim=2) == 1).all())
    share = (cells.take_labels(labels).flatten(1) == 1).any(dim=1).float().mean()
    assert 0.6 < share < 0.8


def test_gradients_reach_the_embedding_through_the_cells():
    embedding = torch.randn(1, 4, 32, 32, requires_grad=True)
    cells = scattered_subset(1, (32, 32), seeded(), torch.device("cpu"))
    cells.take(embedding).sum().backward()
    assert int(embedding.grad[0, 0].sum()) == 16 * 16
