"""Stores the outputs of the blocks, each at its own size, as the estimate of flow and mask for the kernels."""

import ctypes

import torch
from torch import Tensor

from model.contract import BlockOutput, CoarseEstimate
from model.inference.kernels import call, empty, longs


class _BlockOutput(ctypes.Structure):
    """Passes a BlockOutput to the kernels: a map (B,C,h,w) whose first channels are 4 of flow, then the mask."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("channels", ctypes.c_int64),
        ("factor", ctypes.c_int64),
        ("gain", ctypes.c_float),
        ("packed", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
    )


class KernelEstimate:
    """Sums the block outputs so far to the flow and the mask of two frames."""

    def __init__(self, map0: Tensor, map1: Tensor, *, sum_masks: bool, outputs: CoarseEstimate = ()) -> None:
        """Takes the feature maps (B,C,H,W): 3 of colour, features, and zeros up to C = 4, 8, 16 or 32.

        `sum_masks`: the mask is the sum of all masks, not the last one. `outputs`: of the blocks that have run.
        """
        self.maps, self.sum_masks = (map0, map1), sum_masks
        self.outputs = list(outputs)

    def add(self, tail: Tensor, factor: int, packed: int) -> None:
        """Adds the output of a block, its fields as in BlockOutput."""
        self.outputs.append(BlockOutput(tail, factor, packed))

    def _arguments(self) -> tuple[object, ...]:
        """Returns the arguments of the kernels that name the feature maps, their size and the outputs."""
        b, stride, height, width = self.maps[0].shape
        outputs = [
            _BlockOutput(
                values.data_ptr(),
                values.shape[1] // packed**2,
                int(factor),
                float(factor),
                packed,
                height // int(factor),
                width // int(factor),
            )
            for values, factor, packed in self.outputs
        ]
        return *self.maps, longs(b, height, width, stride), (_BlockOutput * len(outputs))(*outputs), len(outputs)

    def inputs(
        self, *, colours: int, factor: int, again: bool, time: float | None, rest: int, rows: tuple[int, int]
    ) -> Tensor:
        """Returns rows [from, to) of a block's input at 1/factor of the frame's size, (B,C,to-from,W/factor).

        Channels: `colours` of each warped feature map, both images unwarped if `again`, the time, `rest` (mask and
        carried features), 4 of flow. `factor` is 1 or even. Rows outside the input are zeros.
        """
        width = self.maps[0].shape[3]
        started = bool(self.outputs)
        channels = 2 * colours + 6 * (again and started) + (time is not None) + (rest + 4) * started
        out = empty(self.maps[0], channels, rows[1] - rows[0], width // factor)
        shape = longs(colours, factor, again and started, rest if started else 0, self.sum_masks, channels)
        arguments = (*self._arguments(), shape, -1.0 if time is None else time, *rows)
        call("block_inputs", out, *arguments)
        return out

    def finish(self, *, sharp: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the blended image (B,3,H,W), the flow (B,4,H,W) px and the mask (B,1,H,W) in 0..1.

        `sharp`: the last output has eight gates more, for `sharpened` and `smoothed` of networks/sharp.py.
        """
        b, _, height, width = self.maps[0].shape
        image, flow, mask = (self.maps[0].new_empty(b, channels, height, width) for channels in (3, 4, 1))
        call("finish", image, flow, mask, *self._arguments(), int(self.sum_masks), int(sharp))
        if sharp:
            blended, image = image, torch.empty_like(image)
            call("smooth", image, blended, *self._arguments()[2:])
        return image, flow, mask


def make_map(image: Tensor, features: Tensor | None) -> Tensor:
    """Returns the feature map of an image (B,3,H,W) and features (B,4*E,H/2,W/2), sub-pixels first."""
    b, _, height, width = image.shape
    channels = 0 if features is None else features.shape[1] // 4
    made = empty(image, 4 if not channels else next(n for n in (8, 16, 32) if n >= 3 + channels), height, width)
    image = image.contiguous(memory_format=torch.channels_last)
    size = longs(b, height, width, made.shape[1])
    call("make_map", made, image, features, size, channels)
    return made
