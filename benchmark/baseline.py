"""Runs the paper's networks and 4.25 as upstream does, in plain PyTorch, as a reference for time and values.

Tensors are NCHW, and nothing is kept between calls: each call pads, computes both frames' features, and after every
block warps both images and their features at full size, which the next block then resizes (upstream model/IFNet.py,
refine.py, warplayer.py; Practical-RIFE 4.25). It is slow on purpose. `load_baseline` takes the weights of a RIFE.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import UserError
from model.IFNet import IFNet
from model.IFNet_v4 import IFNet_v4
from model.image import padder_for
from model.networks.layers import timestep_plane
from model.RIFE import RIFE


def _resize(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _warp(image: Tensor, flow: Tensor, grids: dict[tuple[int, ...], Tensor], mode: str = "bilinear") -> Tensor:
    """Warps as upstream does: grid and flow are normalised separately, and grids are kept."""
    b, _, h, w = flow.shape
    if (b, h, w) not in grids:
        ys, xs = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        grids[b, h, w] = torch.stack((xs, ys)).expand(b, 2, h, w).to(flow.device)
    flow = torch.cat((flow[:, :1] / ((w - 1) / 2), flow[:, 1:2] / ((h - 1) / 2)), 1)
    grid = (grids[b, h, w] + flow).permute(0, 2, 3, 1)
    return F.grid_sample(image, grid, mode, "border", align_corners=True)


class _Conv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, leaky: bool = False) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.2, True) if leaky else nn.PReLU(outputs)
        )


class _ResConv(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1)
        self.beta = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Returns a tensor of the same shape (B,C,H,W)."""
        return F.leaky_relu(self.conv(x) * self.beta + x, 0.2, inplace=True)


class _Block(nn.Module):
    """Computes one IFBlock: `v4` with ResConvs and a pixel shuffle, else the paper's with PReLU and a skip."""

    def __init__(self, inputs: int, width: int, outputs: int, *, v4: bool = False) -> None:
        super().__init__()
        self.v4 = v4
        self.conv0 = nn.Sequential(_Conv(inputs, width // 2, 2, leaky=v4), _Conv(width // 2, width, 2, leaky=v4))
        self.convblock = nn.Sequential(*(_ResConv(width) if v4 else _Conv(width, width) for _ in range(8)))
        self.lastconv: nn.Module = nn.ConvTranspose2d(width, outputs, 4, 2, 1)
        if v4:
            self.lastconv = nn.Sequential(nn.ConvTranspose2d(width, 4 * outputs, 4, 2, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor, flow: Tensor | None, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the change of flow (B,4,H,W) px, the mask's logits (B,1,H,W), and the remaining features."""
        x = _resize(x, 1 / scale)  # (B,C,h,w), h = H/scale
        if flow is not None:
            x = torch.cat((x, _resize(flow, 1 / scale) * (1 / scale)), 1)  # (B,C+4,h,w)
        x = self.conv0(x)  # (B,width,h/4,w/4)
        x = self.convblock(x) if self.v4 else self.convblock(x) + x
        larger = scale if self.v4 else 2 * scale
        out = _resize(self.lastconv(x), larger)  # (B,outputs,H,W)
        return out[:, :4] * larger, out[:, 4:5], out[:, 5:]  # (B,4,H,W), (B,1,H,W), (B,outputs-5,H,W)


class _Pair(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _Conv(inputs, outputs, 2), _Conv(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))  # (B,outputs,H/2,W/2)


class _Contextnet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = _Pair(3, 16), _Pair(16, 32), _Pair(32, 64), _Pair(64, 128)

    def forward(self, x: Tensor, flow: Tensor, grids: dict[tuple[int, ...], Tensor]) -> list[Tensor]:
        out = []
        for stage in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = stage(x)  # each half of the size before
            flow = _resize(flow, 0.5) * 0.5  # of the same size as x
            out.append(_warp(x, flow, grids))
        return out


class _Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down0, self.down1, self.down2, self.down3 = _Pair(17, 32), _Pair(64, 64), _Pair(128, 128), _Pair(256, 256)
        for i, (inputs, outputs) in enumerate(((512, 128), (256, 64), (128, 32), (64, 16))):
            up = nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.PReLU(outputs))
            self.add_module(f"up{i}", up)
        self.conv = nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, x: Tensor, c0: list[Tensor], c1: list[Tensor]) -> Tensor:
        s0 = self.down0(x)  # (B,32,H/2,W/2)
        s1 = self.down1(torch.cat((s0, c0[0], c1[0]), 1))  # (B,64,H/4,W/4)
        s2 = self.down2(torch.cat((s1, c0[1], c1[1]), 1))  # (B,128,H/8,W/8)
        x = self.down3(torch.cat((s2, c0[2], c1[2]), 1))  # (B,256,H/16,W/16)
        for i, skips in enumerate(((c0[3], c1[3]), (s2,), (s1,), (s0,))):
            x = self.get_submodule(f"up{i}")(torch.cat((x, *skips), 1))  # twice the size: at last (B,16,H,W)
        return torch.sigmoid(self.conv(x))  # (B,3,H,W)


class _Paper(nn.Module):
    """Runs the networks RIFE and RIFE_m."""

    def __init__(self, *, timed: bool) -> None:
        super().__init__()
        self.timed = timed
        for i, (inputs, width) in enumerate(((6, 240), (17, 150), (17, 90))):
            self.add_module(f"block{i}", _Block(inputs + timed, width, 5))
        self.contextnet, self.unet = _Contextnet(), _Unet()
        self.grids: dict[tuple[int, ...], Tensor] = {}

    def forward(self, img0: Tensor, img1: Tensor, t: Tensor, scale: float) -> Tensor:
        images = (img0, img1, t) if self.timed else (img0, img1)
        flow = mask = None
        inputs: tuple[Tensor, ...] = images
        warps: list[tuple[Tensor, Tensor]] = []
        masks: list[Tensor] = []
        for i, factor in enumerate((4, 2, 1)):
            change, mask_change, _ = self.get_submodule(f"block{i}")(torch.cat(inputs, 1), flow, factor / scale)
            flow = change if flow is None else flow + change
            mask = mask_change if mask is None else mask + mask_change
            masks.append(mask)
            warps.append((_warp(img0, flow[:, :2], self.grids), _warp(img1, flow[:, 2:4], self.grids)))
            inputs = (*images, *warps[-1], mask)
        assert flow is not None
        merged = [w0 * torch.sigmoid(m) + w1 * (1 - torch.sigmoid(m)) for (w0, w1), m in zip(warps, masks, strict=True)]
        c0 = self.contextnet(img0, flow[:, :2], self.grids)  # levels (B,16*2^k,H/2^(k+1),W/2^(k+1))
        c1 = self.contextnet(img1, flow[:, 2:4], self.grids)
        residual = self.unet(torch.cat((img0, img1, *warps[-1], masks[-1], flow), 1), c0, c1) * 2 - 1  # (B,3,H,W)
        return torch.clamp(merged[-1] + residual, 0, 1)


class _Head(nn.Module):
    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.cnn0, self.cnn1, self.cnn2 = (nn.Conv2d(i, width, 3, s, 1) for i, s in ((3, 2), (width, 1), (width, 1)))
        self.cnn3 = nn.ConvTranspose2d(width, channels, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.cnn0, self.cnn1, self.cnn2):
            x = F.leaky_relu(layer(x), 0.2, inplace=True)  # (B,width,H/2,W/2)
        return self.cnn3(x)  # (B,channels,H,W)


class _V4(nn.Module):
    """Runs the network 4.25 and those of the same graph (4.26, lite, heavy)."""

    def __init__(self, widths: tuple[int, ...], scales: tuple[int, ...], head: tuple[int, int], *, sharp: bool) -> None:
        super().__init__()
        for i, width in enumerate(widths):
            self.add_module(f"block{i}", _Block((20 if i else 7) + 2 * head[1], width, 13, v4=True))
        self.scales, self.sharp = scales, sharp
        self.encode = _Head(*head)
        self.grids: dict[tuple[int, ...], Tensor] = {}

    def forward(self, img0: Tensor, img1: Tensor, t: Tensor, scale: float) -> Tensor:
        f0, f1 = self.encode(img0), self.encode(img1)  # (B,E,H,W)
        block0 = self.get_submodule("block0")
        flow, mask, features = block0(torch.cat((img0, img1, f0, f1, t), 1), None, self.scales[0] / scale)
        warped0, warped1 = _warp(img0, flow[:, :2], self.grids), _warp(img1, flow[:, 2:4], self.grids)
        for i, factor in enumerate(self.scales[1:], 1):
            wf0, wf1 = _warp(f0, flow[:, :2], self.grids), _warp(f1, flow[:, 2:4], self.grids)
            inputs = torch.cat((warped0, warped1, wf0, wf1, t, mask, features), 1)  # (B,16+2E,H,W)
            change, mask, features = self.get_submodule(f"block{i}")(inputs, flow, factor / scale)
            flow = flow + change
            warped0, warped1 = _warp(img0, flow[:, :2], self.grids), _warp(img1, flow[:, 2:4], self.grids)
        if self.sharp:  # this project's weights only
            cubic0, cubic1, near0, near1 = torch.sigmoid(features[:, :4]).split(1, 1)
            shares = torch.tanh(features[:, 4:] / 2).split(1, 1)
            fraction = flow - flow.round()
            cube = 4 * fraction**3 - fraction
            flow0, flow1 = flow[:, :2] + near0 * cube[:, :2], flow[:, 2:4] + near1 * cube[:, 2:4]
            warped0 = warped0 + 2 * cubic0 * (_warp(img0, flow0, self.grids, "bicubic") - warped0)
            warped1 = warped1 + 2 * cubic1 * (_warp(img1, flow1, self.grids, "bicubic") - warped1)
        mask = torch.sigmoid(mask)
        blended = warped0 * mask + warped1 * (1 - mask)
        return _smoothed(blended, shares) if self.sharp else blended


def _smoothed(image: Tensor, shares: Sequence[Tensor]) -> Tensor:
    """Returns the image with its detail along x, fine and coarse, then along y, weakened by the shares (B,1,H,W)."""
    fine, coarse = ((1, 2, 1), 4), ((1, 2, 3, 4, 3, 2, 1), 16)
    out = image
    for turned in (False, True):
        once, twice = (
            _filtered(image, image.new_tensor(taps) / total, turned=turned) for taps, total in (fine, coarse)
        )
        out = out + shares[2 * turned] * (once - image) + shares[2 * turned + 1] * (twice - once)
    return out


def _filtered(image: Tensor, kernel: Tensor, *, turned: bool) -> Tensor:
    """Filters along x, or along y if turned, with the border repeated."""
    reach = len(kernel) // 2
    padded = F.pad(image, (0, 0, reach, reach) if turned else (reach, reach, 0, 0), "replicate")
    weight = kernel.view(1, 1, -1, 1) if turned else kernel.view(1, 1, 1, -1)
    return F.conv2d(padded, weight.expand(3, -1, -1, -1), groups=3)


class Baseline:
    """Interpolates as upstream does, from two images and a timestep to the image between them."""

    def __init__(self, net: nn.Module, model: RIFE) -> None:
        self.net, self.model = net, model

    @torch.no_grad()
    def inference(self, img0: Tensor, img1: Tensor, timestep: float = 0.5, scale: float = 1.0) -> Tensor:
        """Returns the image (B,3,H,W) float32 between two (B,3,H,W) in 0..1, as RIFE.inference does."""
        padder = padder_for(self.model.engine, img0.shape[2], img0.shape[3], scale)
        img0, img1 = (padder.pad(image.to(self.model.device)) for image in (img0, img1))
        out: Tensor = self.net(img0, img1, timestep_plane(timestep, img0), scale)
        return padder.unpad(out)


def load_baseline(model: RIFE) -> Baseline:
    """Returns the baseline with the weights of a RIFE or RIFE_m of the paper, or of a 4.25; UserError for others.

    It computes in float32 on the model's device, also if the model has another dtype.
    """
    own: Any = model.net
    net = _plain_net(own)
    if net is None:
        raise UserError(f"the baseline exists for the paper's RIFE and RIFE_m, and for 4.25; not {model.name}")
    wanted = net.state_dict()
    weights: Mapping[str, Tensor] = own.state_dict()
    net.load_state_dict({key: weights[key].float().clone() for key in wanted}, assign=True)
    return Baseline(net.eval(), model)


def _plain_net(net: nn.Module) -> nn.Module | None:
    if isinstance(net, IFNet) and net.contextnet.first_factor == 0.5:
        return _Paper(timed=net.timed)
    if isinstance(net, IFNet_v4) and net.config.encoder == "H3" and net.config.outputs == 13:
        config = net.config
        return _V4(config.channels, config.scales, (config.encoder_width, config.encoder_channels), sharp=config.sharp)
    return None
