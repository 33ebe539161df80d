"""Cutting a grid of tokens into windows of which the last ones may be incomplete, without filling them up."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TokenRun(NamedTuple):
    """Windows of equal length that lie side by side along one axis: `count` of them, `size` tokens each."""

    start: int
    count: int  # type: ignore[assignment]  # hides tuple's method, which a run does not need
    size: int

    @property
    def span(self) -> slice:
        """All tokens of the run."""
        return slice(self.start, self.start + self.count * self.size)


class Tile(NamedTuple):
    """Windows of one shape: the product of a run of rows and a run of columns."""

    rows: TokenRun
    columns: TokenRun

    @property
    def area(self) -> int:
        """Tokens in one window."""
        return self.rows.size * self.columns.size


def tiles(rows: int, columns: int, side: int) -> list[Tile]:
    """Cut a grid from the top left on into windows of `side` x `side`; at most four different shapes come out."""
    return [Tile(row_run, column_run) for row_run in _runs(rows, side) for column_run in _runs(columns, side)]


def cut(tokens: Tensor, tile: Tile) -> Tensor:
    """View the windows of a tile: [B, rows, columns, H, d] to [B, vertical, horizontal, H, size, size, d]."""
    (_, vertical, height), (_, horizontal, width) = tile
    part = tokens[:, tile.rows.span, tile.columns.span]
    output: Tensor = (
        part.unflatten(1, (vertical, height)).unflatten(3, (horizontal, width)).permute(0, 1, 3, 5, 2, 4, 6)
    )
    return output


def put(tokens: Tensor, tile: Tile, windows: Tensor) -> None:
    """Write windows in the form that `cut` gives, or with all windows along one axis, back into the grid."""
    place = cut(tokens, tile)
    place.copy_(windows.reshape(place.shape))


def _runs(length: int, side: int) -> list[TokenRun]:
    full, rest = divmod(length, side)
    runs = [TokenRun(0, full, side), TokenRun(full * side, 1, rest)]
    return [run for run in runs if run.count and run.size]
