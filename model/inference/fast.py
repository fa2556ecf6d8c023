"""A network as the CPU runs it fastest: the same weights and frames as its own forward, through the kernels.

What is different: memory order (B,H,W,C); 3x3 convolutions by Winograd, with bias, activation, residual and the weight
of a ResConv in one pass; warps and resizes only where the next block looks, straight from what the blocks said, at the
size they said it; a block's input only a strip at a time. Everything else, and what no kernel knows, is the network's
own forward.
"""

from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.IFNet import BLOCK_SCALES, IFNet
from model.IFNet_v4 import IFNet_v4
from model.inference import kernels
from model.inference.kernels import Estimate, Said
from model.inference.packed import HALF, NHWC, PackedBlock, PackedEncoder, PackedPair, PackedUnet, winograd_pays
from model.networks.layers import Begun, Prediction, coarse
from model.networks.sharp import GATES
from model.weights.published import FEATURES_AFTER


class Prepared(NamedTuple):
    """What is known of one frame before its pairs."""

    side: Tensor  # (B,C,H,W): colour and features, as the kernels sample them
    levels: tuple[Tensor, ...]  # of Contextnet


def _order(channels: int, features: int, *, timed: bool, again: bool) -> list[int]:
    """Where the channels that Estimate.inputs makes are in a block's own order; `features` of each side."""
    if again:
        start = 6 + timed
        return [*range(start, start + 6), *range(6), *range(6, start), *range(start + 6, channels)]
    first, second = range(6, 6 + features), range(6 + features, 6 + 2 * features)
    return [0, 1, 2, *first, 3, 4, 5, *second, *range(6 + 2 * features, channels)]


class Fast:
    """An IFNet or IFNet_v4 to call in its place: the same frame_features and forward, Prepared for features."""

    def __init__(self, net: IFNet | IFNet_v4) -> None:
        self.net = net
        if isinstance(net, IFNet):
            self.scales, self.features, self.carried = tuple(BLOCK_SCALES), 0, 0
            self.timed, self.again, self.sum_masks, self.sharp = net.timed, True, True, False
        else:
            config = net.config
            self.scales, self.features, self.carried = config.scales, config.encoder_channels, config.carried
            self.timed, self.again, self.sum_masks = True, config.images_again, not config.replace_mask
            self.sharp = config.sharp
        self.packing = Lock()
        self.seen: tuple[tuple[int, int], ...] = ()  # the weights as they were when they were packed: not yet

    def _version(self) -> tuple[tuple[int, int], ...]:
        # tensors made in inference mode count no versions
        return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.net.parameters())

    @torch.no_grad()
    def _pack(self) -> None:
        """Brings the weights into the kernels' form."""
        self.blocks = []
        for i in range(len(self.scales)):
            block: Any = self.net.get_submodule(f"block{i}")
            channels = block.conv0[0][0].in_channels
            order = _order(channels, self.features, timed=self.timed, again=self.again and i > 0)
            outputs = FEATURES_AFTER + (self.carried if i + 1 < len(self.scales) else GATES * self.sharp)
            self.blocks.append(PackedBlock(block, order, outputs))
        encode: Any = self.net.encode if self.features else None
        self.encoder = None if encode is None else PackedEncoder(encode)
        self.stages, self.unet = [], None
        if isinstance(self.net, IFNet):
            context = self.net.contextnet
            self.stages = [PackedPair(stage) for stage in (context.conv1, context.conv2, context.conv3, context.conv4)]
            self.unet = PackedUnet(self.net.unet)

    def frame_features(self, image: Tensor) -> Prepared:
        """image (B,3,H,W) -> all that does not depend on the other frame."""
        with self.packing:  # threads may share a network
            if self.seen != self._version():  # trained on, or loaded anew
                self._pack()
                self.seen = self._version()
        levels: list[Tensor] = []
        for stage in self.stages:
            levels.append(stage(levels[-1] if levels else image.contiguous(memory_format=NHWC)).float())
        return Prepared(kernels.make_side(image, self.encoder(image) if self.encoder else None), tuple(levels))

    def __call__(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor,
        features0: Prepared,
        features1: Prepared,
        *,
        scale: float = 1.0,
        begun: Begun | Said | None = None,
        **options: bool,
    ) -> Prediction:
        """As the network's forward; its own forward where the kernels do not reach."""
        if not self._reach(timestep, scale, options):
            plain = self._plain(features0, features1)
            out: Prediction = self.net(img0, img1, timestep, *plain, scale=scale, begun=begun, **options)
            return out
        said = begun or ()
        assert not isinstance(said, Begun)
        estimate = Estimate(features0.side, features1.side, sum_masks=self.sum_masks, said=said)
        self._ask(estimate, timestep, scale, len(self.blocks))
        image, flow, mask = estimate.finish(sharp=self.sharp)
        if self.unet is not None:
            image = (image + self._residual(estimate, features0, features1, flow)).clamp_(0, 1)
        return Prediction(image, flow, mask)

    def begin(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor,
        features0: Prepared,
        features1: Prepared,
        *,
        scale: float = 1.0,
        **options: bool,
    ) -> Begun | Said | None:
        """As the network's."""
        if not self._reach(timestep, scale, options):
            net: Any = self.net
            made: Begun | None = net.begin(
                img0, img1, timestep, *self._plain(features0, features1), scale=scale, **options
            )
            return made
        estimate = Estimate(features0.side, features1.side, sum_masks=self.sum_masks)
        self._ask(estimate, timestep, scale, coarse([s / scale for s in self.scales]))
        return tuple(estimate.said)

    def _reach(self, timestep: float | Tensor, scale: float, options: dict[str, bool]) -> bool:
        """Whether the kernels do all of a call."""
        even = all(s == scale or s / scale % 2 == 0 for s in self.scales)
        return even and not options and not isinstance(timestep, Tensor)

    def _plain(self, features0: Prepared, features1: Prepared) -> tuple[Any, Any]:
        """The features as the network's own forward takes them."""
        if self.features:
            return features0.side[:, 3 : 3 + self.features], features1.side[:, 3 : 3 + self.features]
        return features0.levels or None, features1.levels or None

    def _ask(self, estimate: Estimate, timestep: float | Tensor, scale: float, count: int) -> None:
        """Has the next blocks speak, until `count` have."""
        height, width = estimate.sides[0].shape[2:]
        time = float(timestep) if self.timed else None
        for i in range(len(estimate.said), count):
            block, factor = self.blocks[i], int(self.scales[i] / scale)

            def source(rows: tuple[int, int], factor: int = factor) -> Tensor:
                return estimate.inputs(
                    colours=3 + self.features,
                    factor=factor,
                    again=self.again,
                    time=time,
                    rest=1 + self.carried,
                    rows=rows,
                )

            tail = block(source, height // factor, width // factor)
            estimate.add(tail, factor if block.shuffle else 2 * factor, block.tail.packed)

    def _residual(self, estimate: Estimate, features0: Prepared, features1: Prepared, flow: Tensor) -> Tensor:
        assert self.unet is not None

        def source(rows: tuple[int, int]) -> Tensor:
            return estimate.inputs(colours=3, factor=1, again=True, time=None, rest=1, rows=rows)

        return self.unet(source, flow, list(zip(features0.levels, features1.levels, strict=True))) * 2 - 1


def accelerate(net: nn.Module) -> Any:
    """The network to call for inference: Fast where it is known, faster and available, else itself."""
    weight = next(net.parameters())
    if weight.device.type != "cpu" or not _known(net, weight.dtype) or not kernels.available():
        return net
    return Fast(net)  # type: ignore[arg-type]


def _known(net: nn.Module, dtype: torch.dtype) -> bool:
    """Whether Fast has all it needs; a side has at most 32 channels, and the Unet has no other way than Winograd."""
    if dtype not in (torch.float32, HALF):
        return False
    if isinstance(net, IFNet):
        return net.contextnet.first_factor == 0.5 and winograd_pays(dtype)
    if not isinstance(net, IFNet_v4) or net.config.auto_scale or net.config.groups > 1:
        return False
    return net.config.encoder_channels <= 29
