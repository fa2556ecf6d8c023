"""Defines the HD networks, which estimate only the middle frame: 1.x (HD, UHD, anime), 2.x with 3.0/3.1, 3.2-3.8.

Upstream stores each network up to 3.1 in three files (flownet, contextnet, unet). Here contextnet and unet are
submodules, so their keys begin with `contextnet.` and `unet.`. Source: upstream model/oldmodel, and for
3.x the published conversions.
"""

import torch
from torch import Tensor, nn

from model.contract import NetworkModule, Prediction
from model.networks.layers import Levels, blend, conv, deconv, dtype_of
from model.networks.refine import ConvPair
from model.networks.refine_HD import ContextnetHD, FusionNet, ResBlock, normed_conv
from model.networks.warp import resize, resize_flow, warp, warp_both

CHANNELS_V1 = CHANNELS_V2 = (192, 128, 96, 48)  # width of each block, coarse to fine; v2 doubles it inside
CHANNELS_V3_1 = (80, 80, 80)
CHANNELS_V3_8 = (90, 90, 90)
SCALES_OF_4 = (8, 4, 2, 1)
SCALES_OF_3 = (4, 2, 1)


class _Fused(NetworkModule):
    """Estimates flow at half resolution, then residual and mask by context and fusion: base class of 1.x to 3.1.

    Sizes are multiples of 32 for five halvings in context and fusion.
    """

    flow_channels: int  # of the flow that the fusion network takes: 2 if the flow is symmetric, else 4
    contextnet: ContextnetHD
    unet: FusionNet

    def frame_features(self, image: Tensor) -> Levels:
        """Returns the context levels of an image (B,3,H,W), for both pairs of that frame."""
        return self.contextnet.features(image)

    def half_flow(self, img0: Tensor, img1: Tensor, scale: float) -> Tensor:
        """Returns the flow (B,4,H/2,W/2) in pixels of its own size."""
        raise NotImplementedError

    def forward(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor = 0.5,  # ignored: these networks estimate the middle alone
        features0: Levels | None = None,
        features1: Levels | None = None,
        *,
        scale: float = 1.0,
    ) -> Prediction:
        """Estimates the middle frame; images (B,3,H,W) in 0..1, sizes multiples of 32 (divided by scale below 1).

        flows[0] is the flow at half resolution, merged[0] the blend without the residual.
        """
        half = self.half_flow(img0, img1, scale)  # (B,4,H/2,W/2)
        # levels (B,32*2^k,H/2^(k+2),W/2^(k+2))
        context0 = self.contextnet.warped(features0 or self.frame_features(img0), half[:, :2])
        context1 = self.contextnet.warped(features1 or self.frame_features(img1), half[:, 2:])
        flow = resize_flow(half, 2)  # (B,4,H,W)
        warped0, warped1 = warp_both(img0, img1, flow)
        inputs = torch.cat((warped0, warped1, flow[:, : self.flow_channels]), 1)  # (B,8 or 10,H,W)
        out = self.unet(inputs, context0, context1)  # (B,4,H,W)
        mask = out[:, 3:]  # (B,1,H,W)
        merged = blend(warped0, warped1, mask)  # (B,3,H,W)
        image = (merged + out[:, :3] * 2 - 1).clamp(0, 1)
        return Prediction(image, flow, mask, [half], [merged])


class BlockV1(nn.Module):
    """Estimates the change of one symmetric flow at the size of its input: a block of 1.x."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv0 = normed_conv(in_channels, width, 2)
        for i in range(6):
            self.add_module(f"res{i}", ResBlock(width, width, normed=True))
        self.conv1 = nn.Conv2d(width, 8, 3, 1, 1)

    def forward(self, x: Tensor, scale: float) -> Tensor:
        """Returns the change of flow (B,2,h,w) for x (B,C,h,w), resized but, as upstream, not multiplied."""
        x = self.conv0(resize(x, 1 / scale).to(dtype_of(self)))  # (B,width,h/2/scale,w/2/scale)
        for i in range(6):
            x = self.get_submodule(f"res{i}")(x)
        return resize(nn.functional.pixel_shuffle(self.conv1(x), 2).float(), scale)  # (B,2,h,w)


class IFNet_HD(_Fused):
    """Estimates one flow F, by which img0 is warped, and img1 by -F: the networks 1.x (HD, UHD, anime)."""

    flow_channels = 2

    def __init__(self) -> None:
        super().__init__()
        for i, width in enumerate(CHANNELS_V1):
            self.add_module(f"block{i}", BlockV1(8 if i else 6, width))
        self.contextnet = ContextnetHD(conv, ResBlock)
        self.unet = FusionNet(8, conv, ResBlock, shuffle=True)

    def half_flow(self, img0: Tensor, img1: Tensor, scale: float) -> Tensor:
        """Returns the flow (B,4,H/2,W/2) in pixels of its own size."""
        small0, small1 = resize(img0, 0.5 * scale), resize(img1, 0.5 * scale)  # (B,3,h,w), h = H/2 * scale
        flow = self.get_submodule("block0")(torch.cat((small0, small1), 1), SCALES_OF_4[0])  # (B,2,h,w)
        for i in (1, 2, 3):
            pair = warp(small0, flow), warp(small1, -flow)
            flow = flow + self.get_submodule(f"block{i}")(torch.cat((*pair, flow), 1), SCALES_OF_4[i])
        flow = resize_flow(flow, 1 / scale)  # (B,2,H/2,W/2)
        return torch.cat((flow, -flow), 1)  # (B,4,H/2,W/2)


class BlockV2(nn.Module):
    """Estimates the change of the flow at half the size of its input: a block of 2.x and 3.0/3.1.

    `paired`: 3.0/3.1, whose units are three pairs with a skip each and whose flow is multiplied when it is resized.
    """

    def __init__(self, in_channels: int, width: int, *, paired: bool) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(conv(in_channels, width, 2), conv(width, 2 * width, 2))
        if paired:
            for i in range(3):
                self.add_module(f"convblock{i}", nn.Sequential(*(conv(2 * width, 2 * width) for _ in range(2))))
        else:
            self.convblock = nn.Sequential(*(conv(2 * width, 2 * width) for _ in range(6)))
        self.conv1 = deconv(2 * width, 4)
        self.paired = paired

    def forward(self, x: Tensor, flow: Tensor | None, scale: float) -> Tensor:
        """Returns the change of flow (B,4,h/2,w/2) px for x (B,6,h,w) and flow (B,4,h,w) px."""
        x = resize(x, 1 / scale)  # (B,6,h/scale,w/scale)
        if flow is not None:
            x = torch.cat((x, resize(flow, 1 / scale) / (scale if self.paired else 1)), 1)  # 10 channels
        x = self.conv0(x.to(dtype_of(self)))  # (B,2*width,h/scale/4,w/scale/4)
        if self.paired:
            for i in range(3):
                x = self.get_submodule(f"convblock{i}")(x) + x
        else:
            x = self.convblock(x)
        x = self.conv1(x).float()  # (B,4,h/scale/2,w/scale/2)
        return resize_flow(x, scale) if self.paired else resize(x, scale)  # (B,4,h/2,w/2)


class IFNet_HDv2(_Fused):
    """Estimates two flows at half resolution: the networks 2.x, and 3.0 and 3.1 if `paired`."""

    flow_channels = 4

    def __init__(self, *, paired: bool = False) -> None:
        super().__init__()
        self.paired = paired
        self.scales = SCALES_OF_3 if paired else SCALES_OF_4
        for i, width in enumerate(CHANNELS_V3_1 if paired else CHANNELS_V2):
            self.add_module(f"block{i}", BlockV2(10 if i else 6, width, paired=paired))
        self.contextnet = ContextnetHD(ConvPair, ConvPair)
        self.unet = FusionNet(10, ConvPair, ConvPair, shuffle=False)

    def half_flow(self, img0: Tensor, img1: Tensor, scale: float) -> Tensor:
        """Returns the flow (B,4,H/2,W/2) in pixels of its own size."""
        # 2.x takes resized images; 3.0/3.1 take the images at their size, with other scales of the blocks
        shrink, factor = (1.0, 1 / scale) if self.paired else (scale, 1.0)
        img0, img1 = resize(img0, shrink), resize(img1, shrink)
        half = self.get_submodule("block0")(torch.cat((img0, img1), 1), None, self.scales[0] * factor)  # (B,4,h/2,w/2)
        for i in range(1, len(self.scales)):
            flow = resize_flow(half, 2)  # (B,4,h,w)
            pair = warp_both(img0, img1, flow)
            half = half + self.get_submodule(f"block{i}")(torch.cat(pair, 1), flow, self.scales[i] * factor)
        return resize_flow(half, 1 / shrink)  # (B,4,H/2,W/2)


class BlockV3(nn.Module):
    """Estimates the changes of the flow (`conv1`) and of the mask (`conv2`): a block of 3.2-3.8."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(conv(in_channels, width // 2, 2), conv(width // 2, width, 2))
        for i in range(4):
            self.add_module(f"convblock{i}", nn.Sequential(conv(width, width), conv(width, width)))

        def head(channels: int) -> nn.Sequential:
            return nn.Sequential(deconv(width, width // 2), nn.PReLU(width // 2), deconv(width // 2, channels))

        self.conv1 = head(4)
        self.conv2 = head(1)

    def forward(self, x: Tensor, flow: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Returns changes of flow (B,4,H,W) px and mask logits (B,1,H,W), for x (B,7,H,W) and flow (B,4,H,W) px."""
        x = torch.cat((resize(x, 1 / scale), resize_flow(flow, 1 / scale)), 1)  # (B,11,h,w), h = H/scale
        x = self.conv0(x.to(dtype_of(self)))  # (B,width,h/4,w/4)
        for i in range(4):
            x = self.get_submodule(f"convblock{i}")(x) + x
        return resize_flow(self.conv1(x).float(), scale), resize(self.conv2(x).float(), scale)  # (B,C,H,W)


class IFNet_HDv3(NetworkModule):
    """Estimates flow and mask at full resolution, the mean of both orders of the images: the networks 3.2-3.8.

    Sizes are multiples of 32; 16 would be enough, but upstream pads to 32, and padding changes the result.
    """

    def __init__(self) -> None:
        super().__init__()
        for i, width in enumerate(CHANNELS_V3_8):
            self.add_module(f"block{i}", BlockV3(11, width))

    def forward(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor = 0.5,  # ignored
        features0: None = None,
        features1: None = None,
        *,
        scale: float = 1.0,
    ) -> Prediction:
        """Estimates the middle frame; images (B,3,H,W) in 0..1, sizes multiples of 32 (divided by scale below 1)."""
        b, _, h, w = img0.shape
        flow, mask = img0.new_zeros(b, 4, h, w), img0.new_zeros(b, 1, h, w)  # px, logits
        warped0, warped1 = img0, img1
        for i, factor in enumerate(SCALES_OF_3):
            block = self.get_submodule(f"block{i}")
            swapped = torch.cat((flow[:, 2:], flow[:, :2]), 1)  # (B,4,H,W)
            # changes of flow (B,4,H,W) and of mask (B,1,H,W)
            change, logit = block(torch.cat((warped0, warped1, mask), 1), flow, factor / scale)
            other, logit1 = block(torch.cat((warped1, warped0, -mask), 1), swapped, factor / scale)
            flow = flow + (change + torch.cat((other[:, 2:], other[:, :2]), 1)) / 2
            mask = mask + (logit - logit1) / 2
            warped0, warped1 = warp_both(img0, img1, flow)
        weight = torch.sigmoid(mask)
        return Prediction(blend(warped0, warped1, weight), flow, weight)
