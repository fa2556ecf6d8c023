"""Refines the paper's networks and the full files of 4.0-4.4: Contextnet and Unet (upstream refine.py)."""

import torch
from torch import Tensor, nn

from model.networks.layers import Levels, activation, conv, deconv, match_format
from model.networks.warp import resize_flow, warp

FIRST_WIDTH = 16  # of Contextnet's first level; every level doubles it


class ConvPair(nn.Module):
    """Runs two 3x3 convolutions, the first with a stride (upstream: Conv2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2, act: str = "prelu") -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, stride, act)
        self.conv2 = conv(out_channels, out_channels, 1, act)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B,out_channels,H/stride,W/stride) for x (B,C,H,W)."""
        return self.conv2(self.conv1(match_format(x, self)))  # (B,out_channels,H/stride,W/stride)


class Contextnet(nn.Module):
    """Computes four levels of features of one image, 16 to 128 channels; `first_stride` is 1 in the 2R variant."""

    def __init__(self, act: str = "prelu", first_stride: int = 2) -> None:
        super().__init__()
        c = FIRST_WIDTH
        self.conv1 = ConvPair(3, c, first_stride, act)
        self.conv2 = ConvPair(c, 2 * c, 2, act)
        self.conv3 = ConvPair(2 * c, 4 * c, 2, act)
        self.conv4 = ConvPair(4 * c, 8 * c, 2, act)
        self.first_factor = 1 / first_stride

    def features(self, image: Tensor) -> Levels:
        """Returns four levels (B,16*2^k,H/2^(k+1),W/2^(k+1)) of an image (B,3,H,W), independent of the other image."""
        levels = [self.conv1(image)]
        for stage in (self.conv2, self.conv3, self.conv4):
            levels.append(stage(levels[-1]))
        return tuple(levels)

    def warped(self, levels: Levels, flow: Tensor) -> list[Tensor]:
        """Returns the levels, each warped by the flow (B,2,H,W) px resized to its size."""
        out, factor = [], self.first_factor
        for level in levels:
            flow = resize_flow(flow, factor)
            out.append(warp(level, flow))
            factor = 0.5
        return out

    def forward(self, image: Tensor, flow: Tensor) -> list[Tensor]:
        """Returns four levels (B,16*2^k,H/2^(k+1),W/2^(k+1)) of an image (B,3,H,W), warped by a flow (B,2,H,W) px."""
        return self.warped(self.features(image), flow)


class Unet(nn.Module):
    """Estimates the residual image from both images, warped images, mask, flow and warped context.

    Sizes in the comments are those of first_stride 2; in the 2R variant each level is twice as large.
    """

    def __init__(self, act: str = "prelu", first_stride: int = 2) -> None:
        super().__init__()
        c = FIRST_WIDTH

        def up(in_channels: int, out_channels: int) -> nn.Sequential:
            return nn.Sequential(deconv(in_channels, out_channels), activation(act, out_channels))

        self.down0 = ConvPair(17, 2 * c, first_stride, act)
        self.down1 = ConvPair(4 * c, 4 * c, 2, act)
        self.down2 = ConvPair(8 * c, 8 * c, 2, act)
        self.down3 = ConvPair(16 * c, 16 * c, 2, act)
        self.up0 = up(32 * c, 8 * c)
        self.up1 = up(16 * c, 4 * c)
        self.up2 = up(8 * c, 2 * c)
        self.up3 = up(4 * c, c)
        self.conv = nn.Conv2d(c, 3, 3, 2 // first_stride, 1)

    def forward(
        self,
        img0: Tensor,
        img1: Tensor,
        warped0: Tensor,
        warped1: Tensor,
        mask: Tensor,  # logits
        flow: Tensor,
        c0: list[Tensor],
        c1: list[Tensor],
    ) -> Tensor:
        """Returns the residual (B,3,H,W) in 0..1 around 0.5; flow (B,4,H,W) px, c0 and c1: levels of Contextnet."""
        s0 = self.down0(torch.cat((img0, img1, warped0, warped1, mask, flow), 1))  # (B,32,H/2,W/2)
        s1 = self.down1(torch.cat((s0, c0[0], c1[0]), 1))  # (B,64,H/4,W/4)
        s2 = self.down2(torch.cat((s1, c0[1], c1[1]), 1))  # (B,128,H/8,W/8)
        s3 = self.down3(torch.cat((s2, c0[2], c1[2]), 1))  # (B,256,H/16,W/16)
        x = self.up0(torch.cat((s3, c0[3], c1[3]), 1))  # (B,128,H/8,W/8)
        x = self.up1(torch.cat((x, s2), 1))  # (B,64,H/4,W/4)
        x = self.up2(torch.cat((x, s1), 1))  # (B,32,H/2,W/2)
        x = self.up3(torch.cat((x, s0), 1))  # (B,16,H,W)
        return torch.sigmoid(self.conv(x).float())  # (B,3,H,W)
