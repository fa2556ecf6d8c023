"""The parts every IFNet is made of: convolutions with their activation, ResConv, and the IFBlock."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.networks.warp import resize, resize_flow

COARSE = 4  # a block at this scale or beyond is a coarse one
LEAKY_SLOPE = 0.2  # of every LeakyReLU in the v4 networks


class Teaching(NamedTuple):
    """The estimate of the teacher, a block that also sees the ground truth (paper section 3.3)."""

    flow: Tensor  # (B,4,H,W) px
    mask: Tensor  # (B,1,H,W) in 0..1
    merged: Tensor  # (B,3,H,W)
    distillation: Tensor  # the loss that pulls every student flow to the teacher's, a scalar


class Prediction(NamedTuple):
    """What a network returns for a pair of padded images; flows in pixels, channels (x, y) to img0, (x, y) to img1."""

    image: Tensor  # (B,3,H,W), the frame at the timestep, not clamped by the v4 networks
    flow: Tensor  # (B,4,H,W), F(t->0) and F(t->1)
    mask: Tensor  # (B,1,H,W) in 0..1, the weight of the warped img0
    flows: Sequence[Tensor] = ()  # after each block, coarse to fine
    merged: Sequence[Tensor] = ()  # each block's blend, before any refinement
    masks: Sequence[Tensor] = ()  # each block's mask (B,1,H,W), logits
    teaching: Teaching | None = None  # of the teacher, if the ground truth was given


class Begun(NamedTuple):
    """What coarse blocks said of two images: all that the others need of it. Tensors have the images' size or a whole
    fraction of it, so that tiles can be cut out of them."""

    blocks: int  # how many have spoken
    flow: Tensor  # (B,4,H,W) px
    mask: Tensor  # (B,1,H,W) logits
    carried: Tensor | None = None  # (B,8,h,w), features for the next block


def coarse(scales: Sequence[float]) -> int:
    """How many of the blocks, coarse to fine, look at so few pixels that they take little memory: at a sixteenth."""
    return sum(scale >= COARSE for scale in scales)


def activation(kind: str, channels: int) -> nn.Module:
    """PReLU with one slope a channel (it has a state-dict key) or LeakyReLU (it has none)."""
    return nn.PReLU(channels) if kind == "prelu" else nn.LeakyReLU(LEAKY_SLOPE, inplace=True)


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype a module computes in: that of its weights."""
    return next(module.parameters()).dtype


def entering(x: Tensor, module: nn.Module) -> Tensor:
    """x (B,C,H,W) as a module's convolutions take it: in the dtype of their weights, channels last for inference.

    That order makes whole networks 1.1 to 1.2 times as fast on a CPU and is what tensor cores want; training gains
    nothing from it.
    """
    x = x.to(dtype_of(module))
    return x if torch.is_grad_enabled() else x.contiguous(memory_format=torch.channels_last)


def conv(in_channels: int, out_channels: int, stride: int = 1, act: str = "prelu") -> nn.Sequential:
    """A 3x3 convolution and its activation: keys `0.weight`, `0.bias` and, for PReLU, `1.weight`."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1), activation(act, out_channels))


def deconv(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """The transposed convolution that doubles a size: kernel 4, stride 2, padding 1."""
    return nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1)


class ResConv(nn.Module):
    """A residual convolution with a learned weight per channel (4.5 and later): leaky(conv(x) * beta + x)."""

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1, groups=groups)
        self.relu = nn.LeakyReLU(LEAKY_SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(torch.addcmul(x, self.conv(x), self.beta))


class IFBlock(nn.Module):
    """Estimates the change of flow and mask at one scale (paper section 3.2; every network but the HD 1.x-3.8 ones).

    The input is resized by 1/scale, halved twice by strided convolutions, passed through eight 3x3 units and brought
    back. Convolutions run in the dtype of their weights; images, flows and masks around them stay float32.
    """

    def __init__(
        self,
        in_channels: int,  # all that enters the first convolution, the flow included
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
        # the tail ends at this fraction of the block's own size: what is left is done by resizing
        self.remaining = first_stride * (1 if shuffle else 2) // 2

    def forward(
        self, parts: Sequence[Tensor], flow: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Parts (B,C,h,w) of any size, the first of them (B,C,H,W) unless there is a flow (B,4,H,W) px
        -> change of flow (B,4,H,W) px, mask logits (B,1,H,W), features for the next block, (B,C,H,W)/scale, or None.

        Features have the coarser block's own size: resized from there at once they are the same as by way of the
        frame's, unless the block's is larger than that.
        """
        frame = (parts[0] if flow is None else flow).shape[3]
        if scale < 1:
            parts = [resize(part, frame / part.shape[3]) for part in parts]
        inputs = [resize(part, frame / scale / part.shape[3]) for part in parts]
        if flow is not None:
            inputs.append(resize_flow(flow, 1 / scale))
        x = self.conv0(entering(torch.cat(inputs, 1), self))  # (B,width,h/4,w/4)
        x = self.convblock(x) + x if self.skip else self.convblock(x)
        x = self.lastconv(x).float().contiguous()  # (B,outputs,h,w) / remaining
        # split, not slices: the gradient of each slice is a whole tensor of zeros with a copy in it
        change, mask, features = x.split((4, 1, x.shape[1] - 5), 1)
        factor = scale * self.remaining
        return resize_flow(change, factor), resize(mask, factor), features if features.shape[1] > 1 else None


def blend(warped0: Tensor, warped1: Tensor, mask: Tensor) -> Tensor:
    """Weighs two warped images by a mask in 0..1 that belongs to the first."""
    return torch.lerp(warped1, warped0, mask)


def timestep_plane(timestep: float | Tensor, image: Tensor) -> Tensor:
    """A timestep as a float32 plane (B,1,H,W): from a number, a value per sample (B,1,1,1), or a map (B,1,H,W)."""
    b, _, h, w = image.shape
    if not isinstance(timestep, Tensor):
        return torch.full((b, 1, h, w), float(timestep), dtype=torch.float32, device=image.device)
    return timestep.to(image.device, torch.float32).reshape(-1, 1, *timestep.shape[2:]).expand(b, 1, h, w)
