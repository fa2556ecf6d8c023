"""Runs a network on a CPU by the compiled kernels: the same weights and images as the network's own forward, faster.

Differences from the network's forward: memory order (B,H,W,C); 3x3 convolutions by Winograd, with bias, activation,
residual and the weight of a ResConv in one pass; images are warped and block outputs resized only at the pixels that
the next block takes, from outputs that stay at their own size; a block's input is made a strip at a time. Where no
kernel exists for a call, the network's own forward runs.
"""

from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.contract import FLOW_AND_MASK, CoarseEstimate, Network, Prediction, count_coarse
from model.IFNet import BLOCK_SCALES, IFNet
from model.IFNet_HD import SCALES_OF_3, IFNet_HDv3
from model.IFNet_v4 import IFNet_v4
from model.inference import kernels
from model.inference.engine import Engine, Options, PairInputs, with_coarse
from model.inference.kernel_estimate import KernelEstimate, make_map
from model.inference.packed import (
    BFLOAT16,
    NHWC,
    PackedBlock,
    PackedEncoder,
    PackedPair,
    PackedUnet,
    winograd_pays,
)
from model.inference.packed_HD import PackedBlockHD
from model.networks.sharp import GATES

MAX_FEATURES = 29  # of a frame: with 3 of colour they fill the 32 channels of a feature map


class KernelFeatures(NamedTuple):
    """Holds the features of one frame in the form of the kernels."""

    map: Tensor  # (B,C,H,W), the feature map: 3 of colour, features, zeros up to C = 4, 8, 16 or 32
    levels: tuple[Tensor, ...]  # of Contextnet, (B,16*2^k,H/2^(k+1),W/2^(k+1)); () without it


def _order(channels: int, features: int, *, timed: bool, again: bool) -> list[int]:
    """Returns the channels of a block's first convolution in the order of KernelEstimate.inputs.

    `features` are those of one frame; `again`: the block also takes both images unwarped.
    """
    if again:
        start = 6 + timed
        return [*range(start, start + 6), *range(6), *range(6, start), *range(start + 6, channels)]
    first, second = range(6, 6 + features), range(6 + features, 6 + 2 * features)
    return [0, 1, 2, *first, 3, 4, 5, *second, *range(6 + 2 * features, channels)]


class KernelEngine(Engine):
    """Runs an IFNet, IFNet_v4 or IFNet_HDv3 by the kernels; its frame features are KernelFeatures."""

    def __init__(self, net: Network) -> None:
        super().__init__(net)
        assert isinstance(net, IFNet | IFNet_v4 | IFNet_HDv3)
        self.module = net
        self.scales: tuple[int, ...]
        if isinstance(net, IFNet):
            self.scales, self.features, self.carried = BLOCK_SCALES, 0, 0
            self.timed, self.again, self.sum_masks, self.sharp = net.timed, True, True, False
        elif isinstance(net, IFNet_HDv3):
            self.scales, self.features, self.carried = SCALES_OF_3, 0, 0
            self.timed, self.again, self.sum_masks, self.sharp = False, False, True, False
        else:
            config = net.config
            self.scales, self.features, self.carried = config.scales, config.encoder_channels, config.carried
            self.timed, self.again, self.sum_masks = True, config.images_again, not config.replace_mask
            self.sharp = config.sharp
        self.packing = Lock()
        self.packed_versions: tuple[tuple[int, int], ...] = ()  # of the weights that are packed; none yet

    def _versions(self) -> tuple[tuple[int, int], ...]:
        """Returns numbers that differ if a weight was changed or replaced."""
        # tensors made in inference mode count no versions
        return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.module.parameters())

    @torch.no_grad()
    def _pack(self) -> None:
        """Converts the weights to the form of the kernels."""
        self.blocks: list[PackedBlock | PackedBlockHD] = []
        for i in range(len(self.scales)):
            block: Any = self.module.get_submodule(f"block{i}")
            if isinstance(self.module, IFNet_HDv3):
                self.blocks.append(PackedBlockHD(block, first=i == 0))
                continue
            channels = block.conv0[0][0].in_channels
            order = _order(channels, self.features, timed=self.timed, again=self.again and i > 0)
            outputs = FLOW_AND_MASK + (self.carried if i + 1 < len(self.scales) else GATES * self.sharp)
            self.blocks.append(PackedBlock(block, order, outputs))
        encode: Any = self.module.encode if self.features else None
        self.encoder = None if encode is None else PackedEncoder(encode)
        self.stages, self.unet = [], None
        if isinstance(self.module, IFNet):
            context = self.module.contextnet
            self.stages = [PackedPair(stage) for stage in (context.conv1, context.conv2, context.conv3, context.conv4)]
            self.unet = PackedUnet(self.module.unet)

    def frame_features(self, image: Tensor) -> KernelFeatures:
        """Returns the feature map of the frame and the levels of Contextnet for an image (B,3,H,W)."""
        with self.packing:  # threads may share a network
            versions = self._versions()
            if self.packed_versions != versions:  # the network was trained or given other weights
                self._pack()
                self.packed_versions = versions
        levels: list[Tensor] = []
        for stage in self.stages:
            levels.append(stage(levels[-1] if levels else image.contiguous(memory_format=NHWC)).float())
        return KernelFeatures(make_map(image, self.encoder(image) if self.encoder else None), tuple(levels))

    def estimate(self, pair: PairInputs, scale: float, coarse: CoarseEstimate, options: Options) -> Prediction:
        """Estimates the frame at the timestep, as the network does."""
        features0: KernelFeatures = pair.features0
        features1: KernelFeatures = pair.features1
        if not self._supports(pair.timestep, scale, options):
            features = self._network_features(features0), self._network_features(features1)
            more = with_coarse(options, coarse)
            return self.net(pair.img0, pair.img1, pair.timestep, *features, scale=scale, **more)
        estimate = KernelEstimate(features0.map, features1.map, sum_masks=self.sum_masks, outputs=coarse)
        self._run_blocks(estimate, pair.timestep, scale, len(self.blocks))
        image, flow, mask = estimate.finish(sharp=self.sharp)
        if self.unet is not None:
            image = (image + self._residual(estimate, features0, features1, flow)).clamp_(0, 1)
        return Prediction(image, flow, mask)

    def run_coarse(self, pair: PairInputs, scale: float, options: Options) -> CoarseEstimate:
        """Runs the coarse blocks alone, as the network does."""
        features0: KernelFeatures = pair.features0
        features1: KernelFeatures = pair.features1
        if not self._supports(pair.timestep, scale, options):
            features = self._network_features(features0), self._network_features(features1)
            return self.net.estimate_coarse(pair.img0, pair.img1, pair.timestep, *features, scale=scale, **options)
        estimate = KernelEstimate(features0.map, features1.map, sum_masks=self.sum_masks)
        self._run_blocks(estimate, pair.timestep, scale, count_coarse([s / scale for s in self.scales]))
        return tuple(estimate.outputs)

    def _supports(self, timestep: float | Tensor, scale: float, options: dict[str, bool]) -> bool:
        """Returns whether kernels exist for all of a call."""
        even = all(s == scale or s / scale % 2 == 0 for s in self.scales)
        return even and not options and not isinstance(timestep, Tensor)

    def _network_features(self, features: KernelFeatures) -> Any:
        """Returns the features of a frame in the form of the network's own forward."""
        return features.map[:, 3 : 3 + self.features] if self.features else features.levels or None

    def _run_blocks(self, estimate: KernelEstimate, timestep: float | Tensor, scale: float, count: int) -> None:
        """Runs the blocks that follow those whose outputs are in the estimate, up to the first `count`."""
        height, width = estimate.maps[0].shape[2:]
        time = float(timestep) if self.timed else None
        for i in range(len(estimate.outputs), count):
            block, factor = self.blocks[i], int(self.scales[i] / scale)

            def make_rows(rows: tuple[int, int], factor: int = factor) -> Tensor:
                return estimate.inputs(
                    colours=3 + self.features,
                    factor=factor,
                    again=self.again,
                    time=time,
                    rest=1 + self.carried,
                    rows=rows,
                )

            tail = block(make_rows, height // factor, width // factor)
            estimate.add(tail, factor * block.remaining, block.packed)

    def _residual(
        self, estimate: KernelEstimate, features0: KernelFeatures, features1: KernelFeatures, flow: Tensor
    ) -> Tensor:
        """Returns the residual image (B,3,H,W) of the Unet, in -1..1."""
        assert self.unet is not None

        def make_rows(rows: tuple[int, int]) -> Tensor:
            return estimate.inputs(colours=3, factor=1, again=True, time=None, rest=1, rows=rows)

        return self.unet(make_rows, flow, list(zip(features0.levels, features1.levels, strict=True))) * 2 - 1


def has_kernels(net: Network) -> bool:
    """Returns whether a KernelEngine can run this network here: on this device, in its dtype, with this compiler."""
    weight = next(net.parameters())
    return weight.device.type == "cpu" and _is_supported(net, weight.dtype) and kernels.available()


def _is_supported(net: Network, dtype: torch.dtype) -> bool:
    if dtype not in (torch.float32, BFLOAT16):
        return False
    if isinstance(net, IFNet):  # its Unet is packed for Winograd only
        return net.contextnet.first_factor == 0.5 and winograd_pays(dtype)
    if isinstance(net, IFNet_HDv3):  # and so are its heads
        return winograd_pays(dtype)
    if not isinstance(net, IFNet_v4) or net.config.auto_scale or net.config.groups > 1:
        return False
    return net.config.encoder_channels <= MAX_FEATURES
