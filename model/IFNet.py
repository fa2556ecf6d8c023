"""Defines the paper's networks: RIFE (the middle frame), RIFE_m (any timestep), 2R; with teacher and refinement.

Source: Huang et al., ECCV 2022, sections 3.2-3.4; upstream model/IFNet.py, IFNet_m.py, IFNet_2R.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.contract import BlockOutput, CoarseEstimate, NetworkModule, Prediction, TeacherEstimate, count_coarse
from model.networks.layers import IFBlock, Levels, blend, split_output, timestep_plane
from model.networks.refine import Contextnet, Unet
from model.networks.warp import warp_both
from model.training.loss import distillation_loss

CHANNELS = (240, 150, 90)  # width of each block, coarse to fine
BLOCK_SCALES = (4, 2, 1)


class _Estimate(NamedTuple):
    """Holds the estimate after a block."""

    flow: Tensor  # (B,4,H,W) px
    mask: Tensor  # (B,1,H,W) logits
    warped0: Tensor  # (B,3,H,W), both images warped by the flow
    warped1: Tensor

    def blend(self) -> Tensor:
        """Returns the image (B,3,H,W) without the refinement."""
        return blend(self.warped0, self.warped1, torch.sigmoid(self.mask))


class IFNet(NetworkModule):
    """Estimates a frame by three IFBlocks, then refines it by Contextnet and Unet.

    Each block takes both images, and the warped images and the mask of the block before. `timed` builds RIFE_m, whose
    blocks also take a plane of the timestep; `half_stride` builds 2R, whose weights have the same shapes but work at
    twice the size. Keys and shapes are upstream's, `block_tea` included.
    """

    has_coarse_stage = True

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
        self.timed = self.arbitrary_time = timed

    def frame_features(self, image: Tensor) -> Levels:
        """Returns the context levels of an image (B,3,H,W), for every pair and timestep of that frame."""
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
        coarse: CoarseEstimate = (),
        gt: Tensor | None = None,
    ) -> Prediction:
        """Estimates the frame at the timestep; images (B,3,H,W) in 0..1, sizes multiples of 32.

        The timestep is ignored unless `timed`, as upstream does. merged[-1] is the blend before the refinement. With
        `gt`, the true frame (B,3,H,W), the prediction has the teacher's estimate.
        """
        planes = self._planes(img0, img1, timestep)
        estimate = self._resume(planes, coarse)
        estimates: list[_Estimate] = []
        for i in range(len(coarse), len(BLOCK_SCALES)):
            output = self._block_output(i, planes, estimate, BLOCK_SCALES[i] / scale)
            estimate = self._warped(planes, *_add(estimate, output))
            estimates.append(estimate)
        assert estimate is not None
        flow, mask, warped0, warped1 = estimate  # (B,4,H,W), (B,1,H,W), (B,3,H,W), (B,3,H,W)
        # levels (B,16*2^k,H/2^(k+1),W/2^(k+1))
        context0 = self.contextnet.warped(features0 or self.frame_features(img0), flow[:, :2])
        context1 = self.contextnet.warped(features1 or self.frame_features(img1), flow[:, 2:4])
        residual = self.unet(img0, img1, warped0, warped1, mask, flow, context0, context1) * 2 - 1  # (B,3,H,W)
        merged = [s.blend() for s in estimates]  # (B,3,H,W) each
        image = ((merged[-1] if merged else estimate.blend()) + residual).clamp(0, 1)
        made = Prediction(
            image, flow, torch.sigmoid(mask), [s.flow for s in estimates], merged, [s.mask for s in estimates]
        )
        return made if gt is None else made._replace(teacher_estimate=self._teach(planes, estimate, gt, made))

    @torch.no_grad()
    def estimate_coarse(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor = 0.5,
        features0: Levels | None = None,
        features1: Levels | None = None,
        *,
        scale: float = 1.0,
        **options: bool,  # this network has none
    ) -> CoarseEstimate:
        """Runs the coarse blocks alone; `forward` continues from the result, or from tiles cut out of it."""
        factors = [factor / scale for factor in BLOCK_SCALES]
        planes = self._planes(img0, img1, timestep)
        outputs: list[BlockOutput] = []
        for i in range(count_coarse(factors)):
            outputs.append(self._block_output(i, planes, self._resume(planes, tuple(outputs)), factors[i]))
        return tuple(outputs)

    def _planes(self, img0: Tensor, img1: Tensor, timestep: float | Tensor) -> tuple[Tensor, ...]:
        """Returns the inputs of every block: both images and, if `timed`, a plane of the timestep."""
        return (img0, img1, timestep_plane(timestep, img0)) if self.timed else (img0, img1)

    def _resume(self, planes: tuple[Tensor, ...], coarse: CoarseEstimate) -> _Estimate | None:
        """Returns the estimate after the blocks whose outputs are given."""
        estimate: tuple[Tensor, Tensor] | None = None
        for output in coarse:
            estimate = _add(estimate, output)
        return estimate and self._warped(planes, *estimate)

    def _block_output(
        self, i: int, planes: tuple[Tensor, ...], estimate: _Estimate | None, scale: float
    ) -> BlockOutput:
        """Runs block i."""
        block: IFBlock = self.get_submodule(f"block{i}")  # type: ignore[assignment]
        inputs = planes if estimate is None else (*planes, estimate.warped0, estimate.warped1, estimate.mask)
        output: BlockOutput = block([torch.cat(inputs, 1)], estimate and estimate.flow, scale)
        return output

    def _warped(self, planes: tuple[Tensor, ...], flow: Tensor, mask: Tensor) -> _Estimate:
        return _Estimate(flow, mask, *warp_both(planes[0], planes[1], flow))

    def _teach(self, planes: tuple[Tensor, ...], estimate: _Estimate, gt: Tensor, made: Prediction) -> TeacherEstimate:
        """Returns the estimate of the teacher: one more block, which takes the ground truth (paper section 3.3)."""
        inputs = torch.cat((*planes, estimate.warped0, estimate.warped1, estimate.mask, gt), 1)
        teacher = self._warped(planes, *_add(estimate, self.block_tea([inputs], estimate.flow, 1)))
        distillation = distillation_loss(teacher.flow, teacher.blend(), made.flows, made.merged, gt)
        return TeacherEstimate(teacher.flow, torch.sigmoid(teacher.mask), teacher.blend(), distillation)


def _add(estimate: _Estimate | tuple[Tensor, Tensor] | None, output: BlockOutput) -> tuple[Tensor, Tensor]:
    """Returns the flow (B,4,H,W) px and the mask (B,1,H,W) in logits after a block's output."""
    flow, mask, _ = split_output(output)
    return (flow, mask) if estimate is None else (estimate[0] + flow, estimate[1] + mask)
