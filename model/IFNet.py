"""The paper's networks: RIFE (the middle frame), RIFE_m (any timestep) and 2R, with their teacher and refinement.

Source: Huang et al., ECCV 2022, sections 3.2-3.4; upstream model/IFNet.py, IFNet_m.py, IFNet_2R.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.errors import UserError
from model.layers import IFBlock, Prediction, Teaching, blend, timestep_plane
from model.loss import distillation_loss
from model.refine import Contextnet, Unet
from model.warp import warp_both

CHANNELS = (240, 150, 90)  # width of each block, coarse to fine
SCALES = (4, 2, 1)


Levels = tuple[Tensor, ...]


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
        scales: Sequence[float] = SCALES,
        ensemble: bool = False,
        gt: Tensor | None = None,
    ) -> Prediction:
        """Images (B,3,H,W) in 0..1, sizes multiples of 32 -> the prediction, with the teaching if `gt` is given.

        The timestep is ignored unless `timed`, as upstream does. merged[2] is the blend before the refinement.
        """
        if ensemble:
            raise UserError("the paper's networks have no ensemble (that is 4.0-4.20); theirs is tta")
        planes = (img0, img1, timestep_plane(timestep, img0)) if self.timed else (img0, img1)
        flow = mask = None
        inputs: Sequence[Tensor] = planes
        flows, merged, masks = [], [], []
        for block, factor in zip((self.block0, self.block1, self.block2), scales, strict=True):
            change, mask_change, _ = block([torch.cat(tuple(inputs), 1)], flow, factor / scale)
            flow = change if flow is None else flow + change
            mask = mask_change if mask is None else mask + mask_change
            warped0, warped1 = warp_both(img0, img1, flow)
            flows.append(flow)
            masks.append(mask)
            merged.append(blend(warped0, warped1, torch.sigmoid(mask)))
            inputs = (*planes, warped0, warped1, mask)

        assert flow is not None
        assert mask is not None
        teachings = [] if gt is None else [self._teach(inputs, gt, img0, img1, mask, flows, merged)]
        context0 = self.contextnet.warped(features0 or self.frame_features(img0), flow[:, :2])
        context1 = self.contextnet.warped(features1 or self.frame_features(img1), flow[:, 2:4])
        residual = self.unet(img0, img1, warped0, warped1, mask, flow, context0, context1) * 2 - 1
        image = (merged[-1] + residual).clamp(0, 1)
        return Prediction(image, flow, torch.sigmoid(mask), flows, merged, masks, teachings)

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
