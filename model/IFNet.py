"""The paper's networks: RIFE (the middle frame), RIFE_m (any timestep) and 2R, with their teacher and refinement.

Source: Huang et al., ECCV 2022, sections 3.2-3.4; upstream model/IFNet.py, IFNet_m.py, IFNet_2R.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.errors import UserError
from model.networks.layers import Begun, IFBlock, Prediction, Teaching, blend, coarse, timestep_plane
from model.networks.refine import Contextnet, Unet
from model.networks.warp import warp_both
from model.training.loss import distillation_loss

CHANNELS = (240, 150, 90)  # width of each block, coarse to fine
BLOCK_SCALES = (4, 2, 1)


Levels = tuple[Tensor, ...]


class _State(NamedTuple):
    """Where the estimate stands after a block."""

    flow: Tensor  # (B,4,H,W) px
    mask: Tensor  # (B,1,H,W) logits
    warped0: Tensor  # (B,3,H,W), both images moved by the flow
    warped1: Tensor

    def blend(self) -> Tensor:
        """The image (B,3,H,W) without the refinement."""
        return blend(self.warped0, self.warped1, torch.sigmoid(self.mask))


def _refuse_ensemble(ensemble: bool) -> None:
    if ensemble:
        raise UserError("the paper's networks have no ensemble (that is 4.0-4.20); theirs is tta")


class IFNet(nn.Module):
    """Three IFBlocks, each given images, warps and mask of the one before, then Contextnet and Unet.

    `timed`: RIFE_m, whose blocks also see a plane of the timestep. `half_stride`: 2R, same weights' shapes, twice the
    working size. Keys and shapes are upstream's, `block_tea` included.
    """

    def __init__(self, *, timed: bool = False, half_stride: bool = False) -> None:
        super().__init__()
        stride = 1 if half_stride else 2
        extra = int(timed)
        self.block0 = IFBlock(6 + extra, CHANNELS[0], first_stride=stride)
        self.block1 = IFBlock(17 + extra, CHANNELS[1], first_stride=stride)
        self.block2 = IFBlock(17 + extra, CHANNELS[2], first_stride=stride)
        self.block_tea = IFBlock(20 + extra, CHANNELS[2], first_stride=stride)
        self.contextnet = Contextnet(first_stride=stride)
        self.unet = Unet(first_stride=stride)
        self.timed = timed

    @property
    def arbitrary_time(self) -> bool:
        """Whether any timestep can be asked for, or only the middle."""
        return self.timed

    @property
    def pad_multiple(self) -> int:
        """Height and width must be multiples of this (32: Unet's five halvings)."""
        return 32

    pad_mode = "constant"  # what is beyond the edge up to those: upstream's zeros

    def frame_features(self, image: Tensor) -> Levels:
        """(B,3,H,W) -> the context levels of one frame, to be reused by every pair and timestep it takes part in."""
        return self.contextnet.features(image)

    def forward(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor = 0.5,
        features0: Levels | None = None,
        features1: Levels | None = None,
        *,
        scale: float = 1.0,
        scales: Sequence[float] = BLOCK_SCALES,
        ensemble: bool = False,
        begun: Begun | None = None,
        gt: Tensor | None = None,
    ) -> Prediction:
        """Images (B,3,H,W) in 0..1, sizes multiples of 32 -> the prediction, with the teaching if `gt` is given.

        The timestep is ignored unless `timed`, as upstream does. merged[-1] is the blend before the refinement, `begun`
        what `begin` made.
        """
        _refuse_ensemble(ensemble)
        planes = self._planes(img0, img1, timestep)
        state = None if begun is None else self._warped(planes, begun.flow, begun.mask)
        flows, merged, masks = [], [], []
        for i in range(begun.blocks if begun else 0, len(scales)):
            state = self._warped(planes, *self._step(i, planes, state, scales[i] / scale))
            flows.append(state.flow)
            merged.append(state.blend())
            masks.append(state.mask)
        assert state is not None
        flow, mask, warped0, warped1 = state
        inputs = (*planes, warped0, warped1, mask)
        teaching = None if gt is None else self._teach(inputs, gt, img0, img1, mask, flows, merged)
        context0 = self.contextnet.warped(features0 or self.frame_features(img0), flow[:, :2])
        context1 = self.contextnet.warped(features1 or self.frame_features(img1), flow[:, 2:4])
        residual = self.unet(img0, img1, warped0, warped1, mask, flow, context0, context1) * 2 - 1
        image = ((merged[-1] if merged else state.blend()) + residual).clamp(0, 1)
        return Prediction(image, flow, torch.sigmoid(mask), flows, merged, masks, teaching)

    @torch.no_grad()
    def begin(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor = 0.5,
        features0: Levels | None = None,
        features1: Levels | None = None,
        *,
        scale: float = 1.0,
        ensemble: bool = False,
    ) -> Begun | None:
        """As IFNet_v4's; features are not looked at."""
        _refuse_ensemble(ensemble)
        factors = [factor / scale for factor in BLOCK_SCALES]
        planes = self._planes(img0, img1, timestep)
        begun: Begun | None = None
        for i in range(coarse(factors)):
            state = None if begun is None else self._warped(planes, begun.flow, begun.mask)
            begun = Begun(i + 1, *self._step(i, planes, state, factors[i]))
        return begun

    def _planes(self, img0: Tensor, img1: Tensor, timestep: float | Tensor) -> tuple[Tensor, ...]:
        return (img0, img1, timestep_plane(timestep, img0)) if self.timed else (img0, img1)

    def _step(self, i: int, planes: Sequence[Tensor], state: _State | None, factor: float) -> tuple[Tensor, Tensor]:
        """Flow and mask after block i, from what is known by then."""
        block = self.get_submodule(f"block{i}")
        if state is None:
            flow, mask, _ = block([torch.cat(tuple(planes), 1)], None, factor)
            return flow, mask
        inputs = torch.cat((*planes, state.warped0, state.warped1, state.mask), 1)
        flow, mask, _ = block([inputs], state.flow, factor)
        return state.flow + flow, state.mask + mask

    def _warped(self, planes: Sequence[Tensor], flow: Tensor, mask: Tensor) -> _State:
        return _State(flow, mask, *warp_both(planes[0], planes[1], flow))

    def _teach(
        self,
        inputs: Sequence[Tensor],
        gt: Tensor,
        img0: Tensor,
        img1: Tensor,
        mask: Tensor,
        flows: list[Tensor],
        merged: list[Tensor],
    ) -> Teaching:
        change, mask_change, _ = self.block_tea([torch.cat((*inputs, gt), 1)], flows[-1], 1)
        flow = flows[-1] + change
        warped0, warped1 = warp_both(img0, img1, flow)
        mask = torch.sigmoid(mask + mask_change)
        taught = blend(warped0, warped1, mask)
        distillation = distillation_loss(flow, taught, flows, merged, gt)
        return Teaching(flow, mask, taught, distillation)
