"""Every v4 network, 4.0 to 4.26, and 3.9: one class, and a configuration that its weights' shapes determine.

Nothing here depends on a release's name: which has which numbers is in published.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.errors import UserError
from model.networks.head import Head
from model.networks.layers import Begun, IFBlock, Prediction, Teaching, blend, coarse, timestep_plane
from model.networks.refine import Contextnet, Unet
from model.networks.sharp import GATES, SAMPLING, SMOOTHING, sharpened, smoothed
from model.networks.warp import resize, warp_both
from model.training.loss import distillation_loss
from model.weights.published import IFNetConfig

AUTO_SCALE_FLOW = 32  # px; 4.0 and 4.1 start again at double scales if the largest flow to both images exceeds it


class _Side(NamedTuple):
    """A frame and its features."""

    image: Tensor  # (B,3,H,W)
    features: Tensor  # (B,E,H,W), E may be 0


class _State(NamedTuple):
    """Where the estimate stands after a block."""

    sides: tuple[_Side, _Side]
    flow: Tensor  # (B,4,H,W) px
    mask: Tensor  # (B,1,H,W) logits
    carried: Tensor | None  # (B,8,h,w) features for the next block, at the size of their own, not warped
    change: Tensor  # (B,4,H,W) px, what this block said before any ensemble
    warped: tuple[Tensor, Tensor] | None  # both images moved by the flow, if they are wanted at their full size anyway

    def swapped(self) -> "_State":
        """The same estimate with the two images exchanged."""
        warped = self.warped and self.warped[::-1]
        return self._replace(sides=self.sides[::-1], flow=_swap(self.flow), mask=-self.mask, warped=warped)

    def seen(self, scale: float) -> list[Tensor]:
        """Both images, then both sides' features, moved by the flow, for a block that looks at them at 1/scale of their
        size: at that size if not all of their pixels go into it, else at their own.
        """
        factor = int(scale) if scale >= 4 and scale % 2 == 0 else 1
        (image0, features0), (image1, features1) = self.sides
        images = self.warped or warp_both(image0, image1, self.flow, factor=factor)
        if not features0.shape[1]:
            return [*images]
        # apart from the images, since no gradient is wanted of those
        return [*images, *warp_both(features0, features1, self.flow, factor=factor)]

    def blend(self, gates: Tensor | None = None) -> Tensor:
        """The image (B,3,H,W); `gates`: those of a sharp blend, (B,8,h,w) logits."""
        mask = torch.sigmoid(self.mask)
        warped = self.warped or warp_both(self.sides[0].image, self.sides[1].image, self.flow)
        if gates is None:
            return blend(*warped, mask)
        sampling, smoothing = resize(gates, mask.shape[3] / gates.shape[3]).split((SAMPLING, SMOOTHING), 1)
        warped0, warped1 = (
            sharpened(image, side.image, flow, sampling[:, i::2])
            for i, (image, side, flow) in enumerate(zip(warped, self.sides, self.flow.split(2, 1), strict=True))
        )
        return smoothed(blend(warped0, warped1, mask), smoothing)


def _swap(flow: Tensor) -> Tensor:
    """The same flow with the two images exchanged."""
    return torch.cat((flow[:, 2:4], flow[:, :2]), 1)


def _block(config: IFNetConfig, inputs: int, width: int) -> IFBlock:
    return IFBlock(
        inputs,
        width,
        act=config.act,
        residual=config.residual,
        skip=config.skip,
        groups=config.groups,
        outputs=config.outputs,
        shuffle=config.shuffle,
    )


def _is_large(change: Tensor) -> bool:
    return bool(change[:, :2].abs().max() > AUTO_SCALE_FLOW and change[:, 2:4].abs().max() > AUTO_SCALE_FLOW)


class IFNet_v4(nn.Module):
    """Blocks from coarse to fine; each sees both frames warped by the flow so far and corrects flow and mask.

    Unlike the paper's network, later blocks see only the warped images, and there is no refinement by default.
    """

    arbitrary_time = True

    def __init__(self, config: IFNetConfig, *, teacher: bool = False) -> None:
        super().__init__()
        self.config = config
        for i, (inputs, width) in enumerate(zip(config.inputs, config.channels, strict=True)):
            self.add_module(f"block{i}", _block(config, inputs, width))
        if teacher:  # for training only: it sees the ground truth besides what the last block sees
            self.block_tea = _block(config, config.inputs[-1] + 3, config.channels[-1])
        if config.encoder:
            self.encode = Head(config.encoder, config.encoder_width, config.encoder_channels)
        if config.refine:
            self.contextnet = Contextnet(config.act)
            self.unet = Unet(config.act)
        if config.sharp:  # the mark by which a file of weights says so
            self.register_buffer("sharp", torch.ones(GATES))

    @property
    def pad_multiple(self) -> int:
        """Height and width must be multiples of this at scale 1."""
        return self.config.pad_multiple

    @property
    def pad_mode(self) -> str:
        """What is beyond the edge up to those, for torch.nn.functional.pad: upstream's zeros, for our own weights the
        edge repeated. What moves in from there is made of it: a dark rim in every other frame if it is zeros.
        """
        return "replicate" if self.config.sharp else "constant"

    def frame_features(self, image: Tensor) -> Tensor | None:
        """(B,3,H,W) -> (B,E,H,W), to be reused by every pair and timestep the frame takes part in; None if E is 0."""
        return self.encode(image) if self.config.encoder else None

    def forward(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor = 0.5,
        features0: Tensor | None = None,
        features1: Tensor | None = None,
        *,
        scale: float = 1.0,
        ensemble: bool = False,
        refine: bool = False,
        begun: Begun | None = None,
        every_block: bool = False,
        gt: Tensor | None = None,
    ) -> Prediction:
        """Images (B,3,H,W) in 0..1, sizes multiples of pad_multiple (divided by scale below 1) -> Prediction.

        image = warp(img0, F(t->0)) * mask + warp(img1, F(t->1)) * (1 - mask). `ensemble` averages both directions,
        `refine` adds the residual of the Unet, `begun` is what `begin` made, `every_block` also returns each block's
        flow, blend and mask. So does `gt`, the true frame, from which the teacher learns, if there is one.
        """
        if ensemble and not self.config.ensemble:
            raise UserError("this network has no ensemble: only 3.9-4.20 and 4.24 do")
        if refine and not self.config.refine:
            raise UserError("these weights hold no refinement: contextnet.* and unet.* are missing")
        sides = self._sides(img0, img1, features0, features1)
        plane = timestep_plane(timestep, img0)
        scales = [s / scale for s in self.config.scales]
        every_block = every_block or gt is not None
        whole = every_block or refine
        state: _State | None = None
        if begun is not None:
            warped = warp_both(img0, img1, begun.flow) if whole else None
            state = _State(sides, begun.flow, begun.mask, begun.carried, begun.flow, warped)
        flows, merged, masks = [], [], []
        for i in range(begun.blocks if begun else 0, len(scales)):
            state = self._step(i, sides, plane, state, scales[i], ensemble=ensemble, whole=whole)
            if i == 1 and self.config.auto_scale and _is_large(state.change):
                scales = [2 * s for s in scales]
                before = self._step(0, sides, plane, None, scales[0], ensemble=False, whole=whole)
                flows, merged, masks = [before.flow], [before.blend()], [before.mask]
                state = self._step(1, sides, plane, before, scales[1], ensemble=ensemble, whole=whole)
            if every_block and i + 1 < len(scales):
                flows.append(state.flow)
                merged.append(state.blend())
                masks.append(state.mask)
        assert state is not None
        blended = image = state.blend(state.carried if self.config.sharp else None)
        if refine:
            image = (image + self._residual(img0, img1, state)).clamp(0, 1)
        made = Prediction(image, state.flow, torch.sigmoid(state.mask))
        if every_block:
            made = made._replace(flows=[*flows, state.flow], merged=[*merged, blended], masks=[*masks, state.mask])
        if gt is None or not hasattr(self, "block_tea"):
            return made
        return made._replace(teaching=self._teach(sides, plane, state, scales[-1], gt, made))

    @torch.no_grad()
    def begin(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor = 0.5,
        features0: Tensor | None = None,
        features1: Tensor | None = None,
        *,
        scale: float = 1.0,
        ensemble: bool = False,
        refine: bool = False,
    ) -> Begun | None:
        """The coarse blocks of `forward` alone, in little memory: on the same, or with all of it cut into tiles, it
        goes on from there. Not for networks that choose their scales. None if no block is coarse.
        """
        sides, plane = self._sides(img0, img1, features0, features1), timestep_plane(timestep, img0)
        scales = [s / scale for s in self.config.scales]
        state: _State | None = None
        for i in range(coarse(scales)):
            state = self._step(i, sides, plane, state, scales[i], ensemble=ensemble, whole=False)
        return state and Begun(coarse(scales), state.flow, state.mask, state.carried)

    def _sides(
        self, img0: Tensor, img1: Tensor, features0: Tensor | None, features1: Tensor | None
    ) -> tuple[_Side, _Side]:
        if self.config.encoder:
            features0 = self.encode(img0) if features0 is None else features0
            features1 = self.encode(img1) if features1 is None else features1
        return (
            _Side(img0, img0[:, :0] if features0 is None else features0),
            _Side(img1, img1[:, :0] if features1 is None else features1),
        )

    def _step(
        self,
        i: int,
        sides: tuple[_Side, _Side],
        t: Tensor,
        state: _State | None,
        scale: float,
        *,
        ensemble: bool,
        whole: bool,
    ) -> _State:
        """Runs block i on what it sees of both sides, moved by the flow so far."""
        block = self.get_submodule(f"block{i}")
        flow, mask, carried = block(self._inputs(sides, t, state, scale), state and state.flow, scale)
        change = flow
        if ensemble:
            # 3.9 alone gives later blocks the frames themselves, and its published graph does not exchange those
            # (found with fixture v3_9 at timestep 0.5, which cannot tell whether it gives t or 1-t with them)
            turned = sides[::-1] if state is None else sides
            other = state and state.swapped()
            flow1, mask1, _ = block(self._inputs(turned, 1 - t, other, scale), other and other.flow, scale)
            flow, mask = (flow + _swap(flow1)) / 2, (mask - mask1) / 2
        if state is not None:
            flow = state.flow + flow
            mask = mask if self.config.replace_mask else state.mask + mask
        warped = warp_both(sides[0].image, sides[1].image, flow) if whole else None
        return _State(sides, flow, mask, carried, change, warped)

    def _teach(
        self, sides: tuple[_Side, _Side], t: Tensor, state: _State, scale: float, gt: Tensor, made: Prediction
    ) -> Teaching:
        """Returns what a further block estimates that also sees the ground truth (paper section 3.3)."""
        img0, img1 = (side.image for side in sides)
        change, mask, _ = self.block_tea((*self._inputs(sides, t, state, scale), gt), state.flow, scale)
        flow = state.flow + change
        mask = torch.sigmoid(mask if self.config.replace_mask else state.mask + mask)
        taught = blend(*warp_both(img0, img1, flow), mask)
        return Teaching(flow, mask, taught, distillation_loss(flow, taught, made.flows, made.merged, gt))

    def _inputs(self, sides: tuple[_Side, _Side], t: Tensor, state: _State | None, scale: float) -> list[Tensor]:
        """What a block sees besides the flow: 7+2E channels at first, then 8+2E and what was carried on."""
        if state is None:
            (image0, features0), (image1, features1) = sides
            parts = [image0, image1, features0, features1, t]
            return [part for part in parts if part.shape[1]]
        if self.config.images_again:
            return [sides[0].image, sides[1].image, t, *state.seen(scale), state.mask]
        carried = [] if state.carried is None else [state.carried]
        return [*state.seen(scale), t, state.mask, *carried]

    def _residual(self, img0: Tensor, img1: Tensor, state: _State) -> Tensor:
        context0 = self.contextnet(img0, state.flow[:, :2])
        context1 = self.contextnet(img1, state.flow[:, 2:4])
        assert state.warped is not None
        return self.unet(img0, img1, *state.warped, state.mask, state.flow, context0, context1) * 2 - 1


def chooses_scales(net: nn.Module) -> bool:
    """Whether a network's scales, and so its steps, depend on the largest flow that it finds in a batch (4.0, 4.1)."""
    return isinstance(net, IFNet_v4) and net.config.auto_scale
