"""Runs a network on overlapping tiles of its images: large frames in little memory, without visible seams.

Tiles start at multiples of the network's padding, so that every resized grid lies as it does in the whole frame. The
coarse blocks, which need a wide view and little memory, run on the whole frame where the network has a coarse stage. A
tile cannot show motion from beyond its overlap: tiles are for frames that would not fit into memory otherwise.
"""

import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from model.contract import CoarseEstimate, Network, Prediction
from model.errors import UserError
from model.image import pad_multiple
from model.inference.engine import Engine, Options, PairInputs, with_coarse
from model.inference.memory import available_bytes, bytes_per_pixel
from model.inference.tiles import Grid, cut, inner_parts, memory_order, spans
from model.RIFE import RIFE

OVERLAP = 128  # px that neighbours share: a fast pan in 4K is 72 dB to the whole frame by tiles of 1024 px, 63 by 256
WIDE = 3 / 8  # of a tile, at scale 1, where all blocks run on tiles; more at lower scales, where they need a wider view
SMALLEST = 256  # px; smaller tiles would be mostly overlap
# Bytes for each pixel of the frame, whatever the tiles: three frames with their features, the outputs of coarse blocks,
# the result, frames that wait for the encoder, and what the encoder keeps. The last two are the larger part and lie in
# main memory.
HELD_BYTES, HELD_BYTES_ON_GPU = 450, 170
PLENTY = 2000  # bytes a pixel, more than any network needs: where that much is free, nothing is estimated
USABLE = 0.8  # of the free memory: other programs need some too


class TileEngine(Engine):
    """Runs a network, or another engine, on tiles of at most `tile` px a side; 0: on whole frames.

    Neighbours share `overlap` px, or WIDE of a tile if that is more and all blocks run on tiles; half a tile at most.
    Where the device runs out of memory the batch is halved, and once it is one, the tiles are; the failed call is
    repeated, and `report` gets one line about tiles, once (default: printed to stderr).
    """

    def __init__(
        self, net: Network, tile: int = 0, *, overlap: int = OVERLAP, report: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(net)
        self.tile, self.overlap = tile, overlap
        self.report = report or _print_to_stderr
        self.reported = False
        self.max_pixels: int | None = None  # of a call, batch and height and width; None: no limit found yet

    def grid(self, height: int, width: int, scale: float = 1.0) -> Grid:
        """Returns the tiles of a frame of any size."""
        multiple = pad_multiple(self.net, scale)
        overlap = self.overlap
        if not self.has_coarse_stage:
            overlap = max(overlap, round(WIDE * self.tile / min(scale, 1)))
        padded = (-(-side // multiple) * multiple for side in (height, width))
        return Grid(*(spans(side, self.tile or side, overlap, multiple) for side in padded))

    def frame_features(self, image: Tensor) -> Any:
        """Returns the network's features of the whole frame, computed tile by tile.

        Overlapping tiles with features of their own would hold most of them several times.
        """
        while True:
            try:
                return self._features(image)
            except torch.OutOfMemoryError as e:
                problem = _first_sentence(e)
            self._halve_tile(image, 1.0, problem)

    def _features(self, image: Tensor) -> Any:
        height, width = image.shape[2:]
        grid = self.grid(height, width)
        if grid.tile_count == 1:
            return self.net.frame_features(image)
        tile_height = grid.rows[0].stop - grid.rows[0].start

        def enlarged(part: Tensor) -> Tensor:
            k = tile_height // part.shape[2]
            shape = *part.shape[:2], height // k, width // k
            return torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=memory_order(part))

        whole: Any = None
        for (row, top, bottom), (column, left, right) in product(inner_parts(grid.rows), inner_parts(grid.columns)):
            tile = self.net.frame_features(cut(image, height, row, column))
            if whole is None:
                whole = tree_map_only(Tensor, enlarged, tile)
            for target, part in zip(tree_leaves(whole), tree_leaves(tile), strict=True):
                if isinstance(target, Tensor):
                    k = height // target.shape[2]
                    y, x = row.start, column.start
                    inner = part[..., (top - y) // k : (bottom - y) // k, (left - x) // k : (right - x) // k]
                    target[..., top // k : bottom // k, left // k : right // k] = inner
        return whole

    def estimate(self, pair: PairInputs, scale: float, coarse: CoarseEstimate, options: Options) -> Prediction:
        """Estimates the frame at the timestep, as the network does. UserError if the smallest tile does not fit."""
        inputs = (*pair, coarse)
        while True:
            try:
                made = [self._run_tiles(part, scale, options) for part in self._split(inputs)]
                return made[0] if len(made) == 1 else _join(made)
            except torch.OutOfMemoryError as e:
                problem = _first_sentence(e)
            # not inside `except`: while the error is handled, its traceback keeps the tensors of the attempt alive
            image = pair.img0
            if image.device.type == "cuda":
                torch.cuda.empty_cache()
            batch, _, height, width = image.shape
            count = min(batch, self._batch_limit(image))
            if count > 1:
                self.max_pixels = (count + 1) // 2 * height * width
            else:
                self._halve_tile(image, scale, problem)

    def _batch_limit(self, image: Tensor) -> int:
        """Returns how many samples a call may have at once."""
        batch, _, height, width = image.shape
        return batch if self.max_pixels is None else max(self.max_pixels // (height * width), 1)

    def _split(self, inputs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Cuts the inputs of a call into calls with fewer samples, if there is a limit."""
        batch, limit = inputs[0].shape[0], self._batch_limit(inputs[0])
        if batch <= limit:
            return [inputs]

        def piece(start: int) -> tuple[Any, ...]:
            # a map of timesteps may be one for all samples
            made: tuple[Any, ...] = tree_map_only(
                Tensor, lambda x: x[start : start + limit] if x.shape[0] == batch else x, inputs
            )
            return made

        return [piece(start) for start in range(0, batch, limit)]

    def _run_tiles(self, inputs: tuple[Any, ...], scale: float, options: dict[str, Any]) -> Prediction:
        """Runs the coarse blocks on the whole frame, the others on every tile, and blends the results."""
        *pair, coarse = inputs
        height, width = pair[0].shape[2:]
        grid = self.grid(height, width, scale)
        if grid.tile_count > 1 and self.has_coarse_stage and not coarse:
            coarse = self.net.estimate_coarse(*pair, scale=scale, **options)
        if grid.tile_count == 1:
            return self.net(*pair, scale=scale, **with_coarse(options, coarse))
        whole: Tensor | None = None
        for row, column in grid.tiles:
            *tile, output = cut((*pair, coarse), height, row, column)
            made = self.net(*tile, scale=scale, **with_coarse(options, output))
            joined = torch.cat((made.image, made.flow, made.mask), 1)  # (B,8,h,w)
            weights = (row.weights[:, None] * column.weights).to(joined.device)
            if whole is None:
                whole = joined.new_zeros(*joined.shape[:2], height, width)
            whole[..., row.start : row.stop, column.start : column.stop] += joined * weights
        assert whole is not None
        image, flow, mask = whole.split((3, 4, 1), 1)
        return Prediction(image, flow, mask)

    def _halve_tile(self, image: Tensor, scale: float, problem: str) -> None:
        """Makes the tiles a quarter as large. Raises UserError if they are as small as they can be."""
        largest = self.grid(image.shape[2], image.shape[3], scale).side
        smallest = max(SMALLEST, pad_multiple(self.net, scale))
        if largest <= smallest:
            raise UserError(
                f"{problem}; tiles of {largest} px are the smallest: use a lower flow scale, a smaller frame or the CPU"
            )
        self.tile = max(largest // 2, smallest)
        if not self.reported:
            self.reported = True
            self.report(f"Out of memory on {image.device}: the network runs on tiles of {self.tile} px from here on")


def _join(parts: list[Prediction]) -> Prediction:
    """Returns image, flow and mask of several predictions as one batch."""
    image, flow, mask = (torch.cat(tensors) for tensors in zip(*(part[:3] for part in parts), strict=True))
    return Prediction(image, flow, mask)


def _first_sentence(error: Exception) -> str:
    return str(error).partition(". ")[0]


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def tiled(model: RIFE, tile: int = 0, *, overlap: int = OVERLAP, report: Callable[[str], None] | None = None) -> RIFE:
    """Returns the model with its network run on tiles; the arguments are those of TileEngine."""
    engine = TileEngine(model.engine, tile, overlap=overlap, report=report)
    return RIFE(model.net, name=model.name, source=model.source, engine=engine)


def describe_tiles(model: RIFE, height: int, width: int, scale: float = 1.0) -> str:
    """Returns ", in 12 tiles of 1024x896", or "" if the frame is not cut."""
    if not isinstance(model.engine, TileEngine):
        return ""
    grid = model.engine.grid(height, width, scale)
    return f", in {grid}" if grid.tile_count > 1 else ""


def tile_size(model: RIFE, height: int, width: int, scale: float = 1.0) -> int:
    """Returns the side in px of the tiles that fit into the free memory of the model's device; 0: the whole frame fits.

    Also 0 where the free memory is unknown: a TileEngine halves its tiles if the device runs out of memory.
    """
    free = available_bytes(model.device)
    if free is None:
        return 0
    held = HELD_BYTES if model.device.type == "cpu" else HELD_BYTES_ON_GPU
    room = USABLE * free - held * height * width
    if room >= PLENTY * max(scale, 1) ** 2 * height * width:
        return 0
    pixels = room / bytes_per_pixel(model.engine, scale)
    if pixels >= height * width:
        return 0
    return max(int(max(pixels, 0) ** 0.5), SMALLEST)
