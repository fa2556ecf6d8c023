"""Converts the parts of a network for KernelEngine: blocks, encoder and Unet in the form of the kernels.

Memory order is (B,H,W,C); 3x3 convolutions run by Winograd, with bias, activation, residual and the weight of a ResConv
in one pass; a block's input is made and read a strip at a time. With weights in bfloat16, for CPUs with units for it,
only the convolutions by torch compute in bfloat16.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.inference import kernels
from model.inference.kernels import Winograd
from model.networks.head import Head
from model.networks.layers import LEAKY_SLOPE, IFBlock, ResConv
from model.networks.refine import ConvPair, Unet
from model.networks.warp import resize_flow

STRIP = 2**20  # floats of a block's input that are made at once: 4 MB stay in the cache
WINOGRAD_VECTORS = 2  # of channels at least; with one (16 channels on AVX-512) transforms cost more than they save
BFLOAT16 = torch.bfloat16
AMX = "amx_bf16"  # units that make bfloat16 convolutions faster than Winograd in float32; those of AVX512 do not
NHWC = torch.channels_last

MakeRows = Callable[[tuple[int, int]], Tensor]  # returns rows [from, to) of a block's input, zeros outside it


def slopes(activation: nn.Module, like: Tensor) -> Tensor:
    """Returns the slopes (O) of the outputs of a weight (O,...): float32 for PReLU, else the weight's dtype."""
    if isinstance(activation, nn.PReLU):
        return activation.weight.detach().float().contiguous()
    return like.new_full(like.shape[:1], LEAKY_SLOPE)


def _activate(x: Tensor, slope: Tensor) -> Tensor:
    """Applies the activation in place: LeakyReLU in bfloat16 by torch, all others by a kernel in float32."""
    return F.leaky_relu_(x, LEAKY_SLOPE) if slope.dtype == BFLOAT16 else kernels.activate(x.float(), slope)


class Conv:
    """Runs a convolution by torch, followed by its activation if it has one."""

    def __init__(self, conv: nn.Module, activation: nn.Module | None, order: list[int] | None = None) -> None:
        assert isinstance(conv, nn.Conv2d)
        weight = conv.weight.detach()
        self.weight = (weight if order is None else weight[:, order]).contiguous(memory_format=NHWC)
        self.bias, self.stride = conv.bias, conv.stride[0]
        self.slope = None if activation is None else slopes(activation, weight)

    def __call__(self, x: Tensor, padding: tuple[int, int] = (1, 1)) -> Tensor:
        x = F.conv2d(x.to(self.weight.dtype), self.weight, self.bias, self.stride, padding)
        return x if self.slope is None else _activate(x.contiguous(memory_format=NHWC), self.slope)

    def strips(self, make_rows: MakeRows, height: int, width: int) -> Tensor:
        """Convolves an input of a size with stride 2, a strip at a time; `make_rows` returns the rows of the input."""
        step = 2 * max(1, STRIP // (2 * width * self.weight.shape[1]))
        out: Tensor | None = None
        for top in range(0, height, step):
            bottom = min(top + step, height)
            part = self(make_rows((top - 1, bottom)), (0, 1))
            if out is None:
                if bottom == height:
                    return part
                out = kernels.empty(part, part.shape[1], height // 2, part.shape[3])
            out[:, :, top // 2 : bottom // 2] = part
        assert out is not None
        return out


class _Direct:
    """Runs the same convolution as Winograd by torch: faster with few channels, and in bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor, slope: Tensor) -> None:
        self.weight, self.bias, self.slope = weight.contiguous(memory_format=NHWC), bias, slope

    def __call__(self, x: Tensor, residual: Tensor | None = None, *, after: bool = False) -> Tensor:
        y = F.conv2d(x.to(self.weight.dtype), self.weight, self.bias, 1, 1).contiguous(memory_format=NHWC)
        if residual is not None and not after:
            y += residual
        y = _activate(y, self.slope)
        return y + residual if residual is not None and after else y


def winograd_pays(dtype: torch.dtype) -> bool:
    """Returns whether Winograd in float32 is faster than a convolution by torch in a dtype."""
    return dtype == torch.float32 or AMX not in kernels.cpu_flags()


def make_unit(conv: nn.Module, activation: nn.Module, beta: Tensor | None = None) -> Any:
    """Returns a 3x3 convolution of stride 1 with its activation; `beta` (O) scales its outputs before the residual."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    weight, bias = conv.weight.detach(), conv.bias.detach()
    if beta is not None:
        weight, bias = weight * beta.view(-1, 1, 1, 1), bias * beta
    winograd = min(weight.shape[:2]) >= WINOGRAD_VECTORS * kernels.lanes() and winograd_pays(weight.dtype)
    return (Winograd if winograd else _Direct)(weight, bias, slopes(activation, weight))


def of_sub_pixels(weight: Tensor) -> Tensor:
    """Returns a transposed convolution of stride 2, (C,O,4,4), as a 3x3 one for four sub-pixels, (2,2,O,C,3,3)."""
    weight = weight.transpose(0, 1)
    kernel = weight.new_zeros(2, 2, *weight.shape[:2], 3, 3)
    taps = (((1, 1), (0, 3)), ((1, 2), (2, 0)))  # of each sub-pixel: index in the 3x3 kernel, index in the 4x4 kernel
    for dy in (0, 1):
        for dx in (0, 1):
            for y, j in taps[dy]:
                for x, i in taps[dx]:
                    kernel[dy, dx, :, :, y, x] = weight[:, :, j, i]
    return kernel


class _Transposed:
    """Runs a transposed convolution of stride 2 by torch."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight.contiguous(memory_format=NHWC), bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x.to(self.weight.dtype), self.weight, self.bias, 2, 1).float()


class Tail:
    """Runs the transposed convolution at a block's end: by Winograd, or by torch with few channels or in bfloat16.

    Its result (B,packed**2*outputs,h,w) still needs a pixel shuffle: sub-pixels, row by row, come before the channels.
    """

    def __init__(self, weight: Tensor, bias: Tensor, outputs: int, *, shuffle: bool) -> None:
        """Packs weight (C,O,4,4); `outputs`: channels that are used, counted after a pixel shuffle with `shuffle`."""
        inner = 2 if shuffle else 1  # sub-pixels along an axis in the network's own pixel shuffle
        used = torch.arange(weight.shape[1]).view(-1, inner, inner)[:outputs].permute(1, 2, 0).flatten()
        weight, bias = weight[:, used], bias[used]
        self.packed = inner
        self.convolution: Winograd | _Transposed = _Transposed(weight, bias)
        if weight.shape[0] >= WINOGRAD_VECTORS * kernels.lanes() and weight.dtype == torch.float32:
            self.packed = 2 * inner
            shape = 2, 2, inner, inner, outputs
            kernel = of_sub_pixels(weight).unflatten(2, shape[2:]).transpose(1, 2).flatten(0, 4)
            bias = bias.view(1, 1, *shape[2:]).expand(shape).transpose(1, 2).flatten()
            self.convolution = Winograd(kernel, bias, torch.ones_like(bias))

    def __call__(self, x: Tensor) -> Tensor:
        return self.convolution(x)


class PackedBlock:
    """Runs an IFBlock whose input has the channel order of KernelEstimate.inputs."""

    def __init__(self, block: IFBlock, order: list[int], outputs: int) -> None:
        first: Any = block.conv0[0]
        second: Any = block.conv0[1]
        self.first, self.second = Conv(first[0], first[1], order), Conv(second[0], second[1])
        units: list[Any] = list(block.convblock)
        self.residual = isinstance(units[0], ResConv)
        if self.residual:
            self.units = [make_unit(unit.conv, unit.relu, unit.beta.detach().flatten()) for unit in units]
        else:
            self.units = [make_unit(conv, activation) for conv, activation in units]
        self.skip, self.remaining = block.skip, block.remaining
        shuffle = isinstance(block.lastconv, nn.Sequential)
        tail: Any = block.lastconv[0] if isinstance(block.lastconv, nn.Sequential) else block.lastconv
        self.tail = Tail(tail.weight.detach(), tail.bias.detach(), outputs, shuffle=shuffle)
        self.packed = self.tail.packed

    def __call__(self, make_rows: MakeRows, height: int, width: int) -> Tensor:
        """Returns the result of its Tail for an input of a size, whose rows `make_rows` returns."""
        x = before = self.second(self.first.strips(make_rows, height, width))
        for unit in self.units[:-1]:
            x = unit(x, x if self.residual else None)
        skipped = before if self.skip else None
        x = self.units[-1](x, x if self.residual else skipped, after=not self.residual)
        return self.tail(x)


class PackedPair:
    """Runs a ConvPair of networks/refine.py."""

    def __init__(self, pair: ConvPair, order: list[int] | None = None) -> None:
        (conv1, act1), (conv2, act2) = pair.conv1, pair.conv2
        self.first, self.second = Conv(conv1, act1, order), make_unit(conv2, act2)

    def __call__(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class PackedEncoder:
    """Runs the Head without its pixel shuffle: (B,3,H,W) -> (B,4*E,H/2,W/2), sub-pixels first."""

    def __init__(self, head: Head) -> None:
        first, *middle, last = head.children()
        leaky = nn.LeakyReLU(LEAKY_SLOPE)
        self.first = Conv(first, leaky if head.leaky else None)
        self.middle = [make_unit(conv, leaky) for conv in middle]
        assert isinstance(last, nn.ConvTranspose2d)
        assert last.bias is not None
        self.weight = of_sub_pixels(last.weight.detach()).flatten(0, 2).contiguous(memory_format=NHWC)
        self.bias = last.bias.detach().repeat(4)

    def __call__(self, image: Tensor) -> Tensor:
        x = self.first(image.contiguous(memory_format=NHWC))
        for unit in self.middle:
            x = unit(x)
        return F.conv2d(x.to(self.weight.dtype), self.weight, self.bias, 1, 1).float().contiguous(memory_format=NHWC)


class PackedUnet:
    """Runs the Unet, whose first input has the channel order of KernelEstimate.inputs.

    Each level is one tensor, so that nothing is concatenated: first the level's own channels, then the warped context
    of both frames, which the result of the level below replaces on the way up.
    """

    def __init__(self, unet: Unet) -> None:
        first = [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16]
        self.down = [
            PackedPair(unet.down0, first),
            PackedPair(unet.down1),
            PackedPair(unet.down2),
            PackedPair(unet.down3),
        ]
        self.up = []
        ups: list[Any] = [unet.up0, unet.up1, unet.up2, unet.up3]
        for i, (layer, activation) in enumerate(ups):
            weight = layer.weight.detach()
            if i:  # upstream: the level below, then the level's own channels; here: in the opposite order
                weight = weight.roll(weight.shape[0] // 2, 0)
            bias, slope = layer.bias.detach().repeat(4), slopes(activation, layer.bias).repeat(4)
            self.up.append(Winograd(of_sub_pixels(weight).flatten(0, 2), bias, slope, step=2))
        self.last = Conv(unet.conv, None)

    def __call__(self, make_rows: MakeRows, flow: Tensor, levels: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Returns the residual (B,3,H,W) in 0..1 from the unwarped context levels of both frames and the flow in px."""
        joined: list[Tensor] = []
        x = self.down[0].first.strips(make_rows, *flow.shape[2:])
        for i, pair in enumerate(self.down):
            if i:
                x = pair.first(joined[-1])
            own, height, width = x.shape[1:]
            context = levels[i][0].shape[1]
            level = kernels.empty(flow, own + 2 * context, height, width)
            pair.second(x, out=level[:, :own])
            flow = resize_flow(flow, 0.5)
            kernels.warp(levels[i][0], flow[:, :2], level[:, own : own + context])
            kernels.warp(levels[i][1], flow[:, 2:4], level[:, own + context :])
            joined.append(level)
        x = joined.pop()
        for up in self.up:
            if joined:
                level = joined.pop()
                up(x, out=level[:, up.outputs // 4 :])
                x = level
            else:
                x = up(x)
        return torch.sigmoid(self.last(x).float())
