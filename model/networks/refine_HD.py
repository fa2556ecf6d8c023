"""Computes residual image and mask of the HD networks 1.x to 3.1: their context and fusion networks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.networks.layers import Levels, conv, deconv, dtype_of
from model.networks.warp import resize_flow, warp

FIRST_WIDTH = 32  # of the first level of context and fusion; every level doubles it
SQUEEZED = 16  # width of the channel attention in ResBlock

Unit = Callable[[int, int, int], nn.Module]  # (in_channels, out_channels, stride)


class ResBlock(nn.Module):
    """Runs two convolutions weighted by channel attention, and a skip (1.x); `normed`: 5x5, in the flow blocks."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, normed: bool = False) -> None:
        super().__init__()
        c = out_channels
        self.conv0: nn.Module = nn.Identity()
        if in_channels != c or stride != 1:
            self.conv0 = nn.Conv2d(in_channels, c, 3, stride, 1, bias=False)
        if normed:
            self.conv1 = normed_conv(in_channels, c, stride)
            self.conv2 = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c))
        else:
            self.conv1 = conv(in_channels, c, stride)
            self.conv2 = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1))
        self.relu1 = nn.PReLU(1)
        self.relu2 = nn.PReLU(c)
        self.fc1 = nn.Conv2d(c, SQUEEZED, 1, bias=False)
        self.fc2 = nn.Conv2d(SQUEEZED, c, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B,C,H/stride,W/stride) for x (B,in_channels,H,W)."""
        x = x.to(dtype_of(self))
        y = self.conv2(self.conv1(x))  # (B,C,H/stride,W/stride)
        weight = y.mean((2, 3), keepdim=True)  # (B,C,1,1)
        weight = torch.sigmoid(self.fc2(self.relu1(self.fc1(weight))))
        return self.relu2(y * weight + self.conv0(x))  # (B,C,H/stride,W/stride)


def normed_conv(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Returns a 5x5 convolution without bias, batch normalisation and PReLU: keys 0, 1 and 2 (1.x)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 5, stride, 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.PReLU(out_channels),
    )


class ContextnetHD(nn.Module):
    """Computes four levels of features of one image: 32 to 256 channels, at 1/4 to 1/32 of its size."""

    def __init__(self, first: Unit, unit: Unit) -> None:
        super().__init__()
        self.conv0 = first(3, FIRST_WIDTH, 2)
        self.conv1 = unit(FIRST_WIDTH, FIRST_WIDTH, 2)
        self.conv2 = unit(FIRST_WIDTH, 2 * FIRST_WIDTH, 2)
        self.conv3 = unit(2 * FIRST_WIDTH, 4 * FIRST_WIDTH, 2)
        self.conv4 = unit(4 * FIRST_WIDTH, 8 * FIRST_WIDTH, 2)

    def features(self, image: Tensor) -> Levels:
        """Returns four levels (B,32*2^k,H/2^(k+2),W/2^(k+2)) of an image (B,3,H,W), independent of the other image."""
        x = self.conv0(image.to(dtype_of(self)))  # (B,32,H/2,W/2)
        levels = []
        for stage in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = stage(x)
            levels.append(x)
        return tuple(levels)

    def warped(self, levels: Levels, half_flow: Tensor) -> list[Tensor]:
        """Returns the levels, each warped by the flow (B,2,H/2,W/2) px resized to its size."""
        out, flow = [], half_flow
        for level in levels:
            flow = resize_flow(flow, 0.5)
            out.append(warp(level, flow))
        return out


class FusionNet(nn.Module):
    """Estimates residual image and mask from both warped images, the flow and the warped context (unet.pkl)."""

    def __init__(self, inputs: int, first: Unit, unit: Unit, *, shuffle: bool) -> None:
        super().__init__()
        c = FIRST_WIDTH

        def up(in_channels: int, out_channels: int) -> nn.Sequential:
            return nn.Sequential(deconv(in_channels, out_channels), nn.PReLU(out_channels))

        self.conv0 = first(inputs, c, 2)
        self.down0 = unit(c, 2 * c, 2)
        self.down1 = unit(4 * c, 4 * c, 2)
        self.down2 = unit(8 * c, 8 * c, 2)
        self.down3 = unit(16 * c, 16 * c, 2)
        self.up0 = up(32 * c, 8 * c)
        self.up1 = up(16 * c, 4 * c)
        self.up2 = up(8 * c, 2 * c)
        self.up3 = up(4 * c, c)
        self.conv: nn.Module = nn.Conv2d(c, 16, 3, 1, 1) if shuffle else deconv(c, 4)
        self.shuffle = shuffle

    def forward(self, x: Tensor, c0: list[Tensor], c1: list[Tensor]) -> Tensor:
        """Returns residual (B,3,H,W) in 0..1 around 0.5 and mask (B,1,H,W) in 0..1, as one tensor (B,4,H,W)."""
        s0 = self.down0(self.conv0(x.to(dtype_of(self))))  # (B,64,H/4,W/4)
        s1 = self.down1(torch.cat((s0, c0[0], c1[0]), 1))  # (B,128,H/8,W/8)
        s2 = self.down2(torch.cat((s1, c0[1], c1[1]), 1))  # (B,256,H/16,W/16)
        s3 = self.down3(torch.cat((s2, c0[2], c1[2]), 1))  # (B,512,H/32,W/32)
        x = self.up0(torch.cat((s3, c0[3], c1[3]), 1))  # (B,256,H/16,W/16)
        x = self.up1(torch.cat((x, s2), 1))  # (B,128,H/8,W/8)
        x = self.up2(torch.cat((x, s1), 1))  # (B,64,H/4,W/4)
        x = self.conv(self.up3(torch.cat((x, s0), 1)))  # (B,4,H,W), or (B,16,H/2,W/2) before a pixel shuffle
        x = nn.functional.pixel_shuffle(x, 2) if self.shuffle else x  # (B,4,H,W)
        return torch.sigmoid(x.float())
