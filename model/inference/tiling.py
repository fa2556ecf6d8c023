"""A network run on overlapping tiles of its images: large frames in little memory, without visible seams.

Tiles start at multiples of what the network pads to, so that every resized grid lies as it does in the whole frame.
Coarse blocks, which see far and take little memory, see the whole frame where the network can begin with them; what a
tile cannot know is what moves in from beyond its overlap: tiles are for frames that would not fit otherwise.
"""

import sys
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from model.errors import UserError
from model.IFNet_v4 import chooses_scales
from model.inference.memory import available_bytes, bytes_per_pixel
from model.networks.layers import Prediction
from model.RIFE import RIFE, PreparedFrame

OVERLAP = 128  # px that neighbours share: a fast pan in 4K is 72 dB to the whole frame by tiles of 1024 px, 63 by 256
WIDE = 3 / 8  # of a tile, at scale 1, where all blocks run on tiles and see farther at lower scales: 50 to 54 dB
SMALLEST = 256  # px; smaller tiles would be mostly overlap
# Of each pixel of the frame, whatever the tiles: three frames with their features, what coarse blocks take (83 bytes of
# 4.25's own forward), the result, what waits for the encoder and what the encoder keeps. The last two are the larger
# part and in main memory.
HELD_BYTES, HELD_BYTES_ON_GPU = 450, 170
PLENTY = 2000  # bytes a pixel, more than any network takes: where there is as much, nothing is estimated
USABLE = 0.8  # of the memory that is free: others use it too


class Span(NamedTuple):
    """A tile along one axis."""

    start: int
    stop: int
    weights: Tensor  # (stop-start,) float32 in 0..1; those of all spans add up to 1 everywhere


Grid = tuple[list[Span], list[Span]]  # rows and columns


def spans(size: int, tile: int, overlap: int, multiple: int) -> list[Span]:
    """`size` px, a multiple of `multiple`, cut into the fewest equal spans of at most `tile` px that share `overlap`.

    Both are rounded to the multiple, the tile down, the overlap up, but to half a tile at most. Weights rise linearly
    over the middle half of the overlap: at its very edge a tile knows least.
    """
    tile = max(tile // multiple, 1) * multiple
    overlap = min(-(-overlap // multiple), tile // multiple // 2) * multiple
    count = max(-(-(size - overlap) // (tile - overlap)), 1)
    tile = -(-(size + (count - 1) * overlap) // (count * multiple)) * multiple  # no larger than so many need
    starts = [min(i * (tile - overlap), size - tile) for i in range(count)]
    x = torch.arange(size, dtype=torch.float64) + 0.5
    weights = []
    for start in starts:
        # distances to the span's edges; the frame's own edge is no seam
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


class TileFeatures:
    """What the network computes from one frame: tile by tile when first asked for, put together for the whole frame,
    since overlapping tiles would hold most of it several times.
    """

    def __init__(self, image: Tensor) -> None:
        self.image = image  # (B,3,H,W), padded
        self.whole: Any = None  # tensors (B,C,H/k,W/k) in a container of the network's

    def of(self, net: Any, grid: Grid) -> Any:
        """Those of the whole frame."""
        if self.whole is None:
            self.whole = self._compute(net, *grid)
        return self.whole

    def _compute(self, net: Any, rows: list[Span], columns: list[Span]) -> Any:
        if len(rows) * len(columns) == 1:
            return net.frame_features(self.image)
        height = rows[0].stop - rows[0].start

        def enlarged(part: Tensor) -> Tensor:
            k = height // part.shape[2]
            shape = *part.shape[:2], self.image.shape[2] // k, self.image.shape[3] // k
            return torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=_order(part))

        whole: Any = None
        for (row, top, bottom), (column, left, right) in product(_inner(rows), _inner(columns)):
            tile = net.frame_features(cut(self.image, self.image, row, column))
            if whole is None:
                whole = tree_map_only(Tensor, enlarged, tile)
            for to, part in zip(tree_leaves(whole), tree_leaves(tile), strict=True):
                if isinstance(to, Tensor):
                    k = self.image.shape[2] // to.shape[2]
                    y, x = row.start, column.start
                    inner = part[..., (top - y) // k : (bottom - y) // k, (left - x) // k : (right - x) // k]
                    to[..., top // k : bottom // k, left // k : right // k] = inner
        return whole


def cut(whole: Any, frame: Tensor, row: Span, column: Span) -> Any:
    """A tile of every tensor, (B,C,H/k,W/k) for a frame (B,3,H,W), in any containers; single values stay."""

    def tile(part: Tensor) -> Tensor:
        if part.shape[2:] == (1, 1):  # timesteps
            return part
        k = frame.shape[2] // part.shape[2]
        tile = part[..., row.start // k : row.stop // k, column.start // k : column.stop // k]
        return tile.contiguous(memory_format=_order(part))

    return tree_map_only(Tensor, tile, whole)


def _order(tensor: Tensor) -> torch.memory_format:
    last = torch.channels_last
    return last if tensor.is_contiguous(memory_format=last) else torch.contiguous_format


def _inner(line: list[Span]) -> list[tuple[Span, int, int]]:
    """Each span and the part that is nearer to its middle than to that of any other."""
    edges = [line[0].start, *((a.stop + b.start) // 2 for a, b in pairwise(line)), line[-1].stop]
    return [(span, start, stop) for span, (start, stop) in zip(line, pairwise(edges), strict=True)]


class TiledRIFE(RIFE):
    """A RIFE whose network sees tiles of at most `tile` px a side; 0: whole frames.

    Neighbours share `overlap` px, or WIDE of a tile if that is more and all blocks run on tiles; half a tile at most.
    Where a device runs out of memory there are half as many timesteps at once, and when it is one the tiles are halved;
    what failed is made again, and `tell` hears of tiles, once.
    """

    def __init__(
        self, model: RIFE, tile: int = 0, *, overlap: int = OVERLAP, tell: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(model.net, name=model.name, source=model.source, fast=model.fast)
        self.tile, self.overlap = tile, overlap
        self.tell = tell or _to_stderr
        self.told = False

    def grid(self, height: int, width: int, scale: float = 1.0) -> Grid:
        """Rows and columns of the tiles of a frame of any size."""
        multiple = self.multiple(scale)
        overlap = self.overlap if self._begins() else max(self.overlap, round(WIDE * self.tile / min(scale, 1)))
        padded = (-(-side // multiple) * multiple for side in (height, width))
        rows, columns = (spans(side, self.tile or side, overlap, multiple) for side in padded)
        return rows, columns

    def describe(self, height: int, width: int, scale: float = 1.0) -> str:
        """`, in 12 tiles of 1024x896`, or nothing if the frame is not divided."""
        rows, columns = self.grid(height, width, scale)
        if len(rows) * len(columns) == 1:
            return ""
        tile = f"{columns[0].stop - columns[0].start}x{rows[0].stop - rows[0].start}"
        return f", in {len(rows) * len(columns)} tiles of {tile}"

    def _begins(self) -> bool:
        """Whether coarse blocks can see the whole frame; not if what they find decides about the others' scales."""
        return hasattr(self.net, "begin") and not chooses_scales(self.net)

    def _features(self, image: Tensor) -> TileFeatures:
        return TileFeatures(image)

    def _estimate(
        self, frame0: PreparedFrame, frame1: PreparedFrame, timestep: float | Tensor, **options: bool
    ) -> Prediction:
        while True:
            try:
                return self._from_tiles(frame0, frame1, timestep, **options)
            except torch.OutOfMemoryError as e:
                problem = str(e).partition(". ")[0]
            # here, not above: while the error is handled, its traceback keeps the tensors of the attempt alive
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            batch, _, height, width = frame0.image.shape
            if isinstance(timestep, Tensor) and timestep.shape[0] > batch:
                half = (timestep.shape[0] + 1) // 2
                self.batch_pixels = half * height * width
                parts = [self._estimate(frame0, frame1, some, **options) for some in timestep.split(half)]
                image, flow, mask = (torch.cat(part) for part in zip(*(made[:3] for made in parts), strict=True))
                return Prediction(image, flow, mask)
            self._halve_tile(frame0, problem)

    def _from_tiles(
        self, frame0: PreparedFrame, frame1: PreparedFrame, timestep: float | Tensor, **options: Any
    ) -> Prediction:
        height, width = frame0.image.shape[2:]
        grid = rows, columns = self.grid(height, width, frame0.scale)
        images = frame0.image, frame1.image
        features: Any = [frame.features.of(self.fast, grid) for frame in (frame0, frame1)]  # type: ignore[attr-defined]
        if len(rows) * len(columns) == 1:
            return self._call(images, features, timestep, scale=frame0.scale, **options)
        known: dict[str, Any] = {"images": images, "features": features, "timestep": timestep}
        if self._begins():
            known["begun"] = self._call(**known, by=self.fast.begin, scale=frame0.scale, **options)
        whole: Tensor | None = None
        for row, column in product(rows, columns):
            out = self._call(**cut(known, frame0.image, row, column), scale=frame0.scale, **options)
            made = torch.cat((out.image, out.flow, out.mask), 1)  # (B,8,h,w)
            weights = (row.weights[:, None] * column.weights).to(made.device)
            if whole is None:
                whole = made.new_zeros(*made.shape[:2], height, width)
            whole[..., row.start : row.stop, column.start : column.stop] += made * weights
        assert whole is not None
        return Prediction(*whole.split((3, 4, 1), 1))

    def _halve_tile(self, frame: PreparedFrame, problem: str) -> None:
        """A quarter of the pixels; UserError if the tiles are as small as they can be."""
        height, width = frame.image.shape[2:]
        rows, columns = self.grid(height, width, frame.scale)
        largest = max(span.stop - span.start for span in (rows[0], columns[0]))
        multiple = self.multiple(frame.scale)
        if largest <= max(SMALLEST, multiple):
            raise UserError(
                f"{problem}; tiles of {largest} px are the smallest: choose a lower --scale, a smaller frame, "
                "or --device cpu"
            )
        self.tile = max(largest // 2, SMALLEST, multiple)
        if not self.told:
            self.told = True
            self.tell(f"Out of memory on {self.device}: going on in tiles of {self.tile} px")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def tile_size(model: RIFE, height: int, width: int, scale: float = 1.0, *, mapped: bool = False) -> int:
    """The side of the tiles that fit into the memory that is free on the model's device; 0: the whole frame does.

    0 too where it is unknown how much is free: a device that runs out of memory is met by halving.
    """
    free = available_bytes(model.device)
    if free is None:
        return 0
    held = HELD_BYTES if model.device.type == "cpu" else HELD_BYTES_ON_GPU
    room = USABLE * free - held * height * width
    if room >= PLENTY * max(scale, 1) ** 2 * height * width:
        return 0
    pixels = room / bytes_per_pixel(model.fast, scale, mapped=mapped)
    if pixels >= height * width:
        return 0
    return max(int(max(pixels, 0) ** 0.5), SMALLEST)
