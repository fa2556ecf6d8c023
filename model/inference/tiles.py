"""Cuts a frame into overlapping tiles and blends them again without visible seams."""

from itertools import pairwise, product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


class Span(NamedTuple):
    """Holds a tile along one axis."""

    start: int  # px of the frame
    stop: int
    weights: Tensor  # (stop-start,) float32 in 0..1; the weights of all spans add up to 1 at every pixel


class Grid(NamedTuple):
    """Holds the tiles of a frame: every row with every column."""

    rows: list[Span]
    columns: list[Span]

    def __str__(self) -> str:
        return f"{self.tile_count} tiles of {_length(self.columns[0])}x{_length(self.rows[0])}"

    @property
    def tile_count(self) -> int:
        """Returns the number of tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def tiles(self) -> list[tuple[Span, Span]]:
        """Returns the row and the column of every tile."""
        return list(product(self.rows, self.columns))

    @property
    def side(self) -> int:
        """Returns the longer side of a tile in px."""
        return max(_length(self.rows[0]), _length(self.columns[0]))


def _length(span: Span) -> int:
    return span.stop - span.start


def spans(size: int, tile: int, overlap: int, multiple: int) -> list[Span]:
    """Cuts `size` px into the fewest equal spans of at most `tile` px of which neighbours share `overlap` px.

    `size` is a multiple of `multiple`. Tile and overlap are rounded to multiples too, the tile down, the overlap up,
    but to half a tile at most. Weights rise linearly over the middle half of the overlap and are 0 at a tile's edge,
    where the network has the least context.
    """
    tile = max(tile // multiple, 1) * multiple
    overlap = min(-(-overlap // multiple), tile // multiple // 2) * multiple
    count = max(-(-(size - overlap) // (tile - overlap)), 1)
    tile = -(-(size + (count - 1) * overlap) // (count * multiple)) * multiple  # the smallest that `count` spans allow
    starts = [min(i * (tile - overlap), size - tile) for i in range(count)]
    x = torch.arange(size, dtype=torch.float64) + 0.5
    weights = []
    for start in starts:
        # distances to the span's edges; the edge of the frame is no seam
        left = x - start if start else torch.full_like(x, size)
        right = start + tile - x if start + tile < size else torch.full_like(x, size)
        inner = torch.minimum(left, right)
        # without any overlap: 1 inside, 0 outside
        weights.append(((inner - overlap / 4) / max(overlap / 2, 0.5)).clamp(0, 1))
    total = torch.stack(weights).sum(0)
    return [
        Span(start, start + tile, (weight / total)[start : start + tile].float())
        for start, weight in zip(starts, weights, strict=True)
    ]


def cut(whole: Any, height: int, row: Span, column: Span) -> Any:
    """Returns a tile of every tensor (B,C,H/k,W/k) in any nest, for a frame of height H; single values stay."""

    def tile(part: Tensor) -> Tensor:
        if part.shape[2:] == (1, 1):  # timesteps
            return part
        k = height // part.shape[2]
        piece = part[..., row.start // k : row.stop // k, column.start // k : column.stop // k]
        return piece.contiguous(memory_format=memory_order(part))

    return tree_map_only(Tensor, tile, whole)


def memory_order(tensor: Tensor) -> torch.memory_format:
    """Returns the memory format of a tensor (B,C,H,W): channels_last or contiguous_format."""
    last = torch.channels_last
    return last if tensor.is_contiguous(memory_format=last) else torch.contiguous_format


def inner_parts(line: list[Span]) -> list[tuple[Span, int, int]]:
    """Returns each span with the start and stop (px) of the part that is nearer to its middle than to any other's."""
    edges = [line[0].start, *((a.stop + b.start) // 2 for a, b in pairwise(line)), line[-1].stop]
    return [(span, start, stop) for span, (start, stop) in zip(line, pairwise(edges), strict=True)]
