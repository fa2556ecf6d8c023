"""Defines the parts of every IFNet: convolutions with their activation, ResConv, and the IFBlock."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.contract import FLOW_AND_MASK, BlockOutput
from model.networks.warp import resize, resize_flow

LEAKY_SLOPE = 0.2  # of every LeakyReLU in the v4 networks

Levels = tuple[Tensor, ...]  # features of one image, each half the size of the one before


def activation(kind: str, channels: int) -> nn.Module:
    """Returns PReLU with a slope for each channel (it has a state-dict key), or LeakyReLU (it has none)."""
    return nn.PReLU(channels) if kind == "prelu" else nn.LeakyReLU(LEAKY_SLOPE, inplace=True)


def dtype_of(module: nn.Module) -> torch.dtype:
    """Returns the dtype of a module's weights, in which it computes."""
    return next(module.parameters()).dtype


def match_format(x: Tensor, module: nn.Module) -> Tensor:
    """Returns x (B,C,H,W) in the dtype of a module's weights, and for inference in the memory order channels_last.

    That order makes whole networks 1.1 to 1.2 times as fast on a CPU and suits tensor cores; training gains nothing.
    """
    x = x.to(dtype_of(module))
    return x if torch.is_grad_enabled() else x.contiguous(memory_format=torch.channels_last)


def conv(in_channels: int, out_channels: int, stride: int = 1, act: str = "prelu") -> nn.Sequential:
    """Returns a 3x3 convolution and its activation: keys `0.weight`, `0.bias` and, for PReLU, `1.weight`."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1), activation(act, out_channels))


def deconv(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """Returns the transposed convolution that doubles a size: kernel 4, stride 2, padding 1."""
    return nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1)


class ResConv(nn.Module):
    """Runs a residual convolution with a learned weight per channel (4.5 and later): leaky(conv(x) * beta + x)."""

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1, groups=groups)
        self.relu = nn.LeakyReLU(LEAKY_SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Returns a tensor of the same shape (B,C,H,W)."""
        return self.relu(torch.addcmul(x, self.conv(x), self.beta))


class IFBlock(nn.Module):
    """Estimates the change of flow and mask at one scale (paper section 3.2; every network but the HD 1.x-3.8 ones).

    The input is resized by 1/scale, halved twice by strided convolutions, passed through eight 3x3 units and
    enlarged. Convolutions run in the dtype of their weights; images, flows and masks around them stay float32.
    """

    def __init__(
        self,
        in_channels: int,  # of the first convolution, the flow included
        width: int,
        *,
        act: str = "prelu",
        residual: bool = False,  # ResConv units (4.5 on) instead of conv and activation
        skip: bool = True,  # around the whole stack of units (paper, 3.9, 4.0, 4.1)
        groups: int = 1,
        outputs: int = 5,  # 4 flow, 1 mask; 6: one unused; 13: eight features for the next block
        shuffle: bool = False,  # the tail ends in a pixel shuffle (4.5 on)
        first_stride: int = 2,  # 1 in the paper's 2R variant: the block works at twice the size
    ) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(
            conv(in_channels, width // 2, first_stride, act), conv(width // 2, width, 2, act)
        )  # (B,width,h/4,w/4)
        units = [ResConv(width, groups) if residual else conv(width, width, 1, act) for _ in range(8)]
        self.convblock = nn.Sequential(*units)
        self.lastconv: nn.Module = deconv(width, outputs)
        if shuffle:
            self.lastconv = nn.Sequential(deconv(width, 4 * outputs), nn.PixelShuffle(2))
        self.skip = skip
        # the block's own size divided by the size of its output
        self.remaining = first_stride * (1 if shuffle else 2) // 2

    def forward(self, parts: Sequence[Tensor], flow: Tensor | None, scale: float) -> BlockOutput:
        """Estimates changes at 1/scale of the frame's size.

        `parts` are concatenated along the channels. Each is (B,C,H,W) or smaller: features (B,C,h,w) of a coarser block
        are resized in one step, with the same result as by way of the frame's size. `flow` (B,4,H,W) px is concatenated
        last; if it is None, the first part has the frame's size.
        """
        frame_width = (parts[0] if flow is None else flow).shape[3]
        if scale < 1:
            parts = [resize(part, frame_width / part.shape[3]) for part in parts]
        inputs = [resize(part, frame_width / scale / part.shape[3]) for part in parts]  # (B,C,h,w), h = H/scale
        if flow is not None:
            inputs.append(resize_flow(flow, 1 / scale))  # (B,4,h,w) px of that size
        x = self.conv0(match_format(torch.cat(inputs, 1), self))  # (B,width,h/4,w/4)
        x = self.convblock(x) + x if self.skip else self.convblock(x)
        x = self.lastconv(x).float().contiguous()  # (B,outputs,h,w) / remaining
        return BlockOutput(x, scale * self.remaining)


def split_output(output: BlockOutput) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns a block's change of flow (B,4,H,W) px, its mask logits (B,1,H,W), and its features (B,C,h,w) or None.

    Flow and mask have the frame's size, features the block's own; one unused channel is not returned.
    """
    x, factor, _ = output.unpacked()
    # split, not slices: the gradient of each slice would be a whole tensor of zeros with a copy in it
    flow, mask, features = x.split((4, 1, x.shape[1] - FLOW_AND_MASK), 1)
    return resize_flow(flow, factor), resize(mask, factor), features if features.shape[1] > 1 else None


def blend(warped0: Tensor, warped1: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean of two warped images (B,C,H,W), weighted by a mask (B,1,H,W) in 0..1 for the first."""
    return torch.lerp(warped1, warped0, mask)


def timestep_plane(timestep: float | Tensor, image: Tensor) -> Tensor:
    """Returns a timestep as a float32 plane (B,1,H,W): from a number, (B,1,1,1), or a map (B,1,H,W)."""
    b, _, h, w = image.shape
    if not isinstance(timestep, Tensor):
        return torch.full((b, 1, h, w), float(timestep), dtype=torch.float32, device=image.device)
    return timestep.to(image.device, torch.float32).reshape(-1, 1, *timestep.shape[2:]).expand(b, 1, h, w)
