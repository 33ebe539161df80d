"""The window of the training views holds what is labeled."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from HSAMSegmentLib.training.data.batches import find_label_crop
from HSAMSegmentLib.training.data.cases import UNLABELED


def _bank(labels: torch.Tensor, tiles: int = 1) -> SimpleNamespace:
    return SimpleNamespace(labels=labels[:, None].expand(-1, tiles, -1, -1), tile_count=tiles)


def _labeled(rows: slice, cols: slice, side: int = 256) -> torch.Tensor:
    labels = torch.zeros(3, side, side, dtype=torch.uint8)
    labels[1, rows, cols] = 2
    return labels


def test_the_window_holds_the_labels_with_a_margin_in_steps_of_the_encoder():
    focus = find_label_crop([_bank(_labeled(slice(100, 180), slice(20, 140)))], 256)
    assert focus.size == (128, 160)
    assert focus.centers_px == ((79.5, 139.5),)


def test_every_scan_has_its_own_center_and_all_share_the_larger_window():
    banks = [_bank(_labeled(slice(0, 40), slice(0, 40))), _bank(_labeled(slice(100, 200), slice(90, 120)))]
    focus = find_label_crop(banks, 256)
    assert focus.size == (160, 96)
    assert focus.centers_px == ((19.5, 19.5), (104.5, 149.5))


def test_unlabeled_pixels_are_no_labels():
    labels = _labeled(slice(100, 140), slice(100, 140))
    labels[0] = UNLABELED
    assert find_label_crop([_bank(labels)], 256).size == (96, 96)


def test_there_is_no_window_where_it_would_spare_nothing():
    assert find_label_crop([_bank(_labeled(slice(0, 250), slice(0, 250)))], 256) is None
    assert find_label_crop([_bank(torch.zeros(3, 256, 256, dtype=torch.uint8))], 256) is None
    assert find_label_crop([_bank(_labeled(slice(0, 40), slice(0, 40)), tiles=2)], 256) is None
