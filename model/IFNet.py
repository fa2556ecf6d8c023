"""The paper's networks: RIFE (the middle frame), RIFE_m (any timestep) and 2R, with their teacher and refinement.

Source: Huang et al., ECCV 2022, sections 3.2-3.4; upstream model/IFNet.py, IFNet_m.py, IFNet_2R.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.contract import BlockOutput, CoarseEstimate, NetworkModule, Prediction, Teaching, count_coarse
from model.networks.layers import IFBlock, blend, changes, timestep_plane
from model.networks.refine import Contextnet, Unet
from model.networks.warp import warp_both
from model.training.loss import distillation_loss

CHANNELS = (240, 150, 90)  # width of each block, coarse to fine
BLOCK_SCALES = (4, 2, 1)

Levels = tuple[Tensor, ...]


class _Estimate(NamedTuple):
    """The estimate after a block."""

    flow: Tensor  # (B,4,H,W) px
    mask: Tensor  # (B,1,H,W) logits
    warped0: Tensor  # (B,3,H,W), both images warped by the flow
    warped1: Tensor

    def blend(self) -> Tensor:
        """Returns the image (B,3,H,W) without the refinement."""
        return blend(self.warped0, self.warped1, torch.sigmoid(self.mask))


class IFNet(NetworkModule):
    """Three IFBlocks, each given images, warped images and mask of the one before, then Contextnet and Unet.

    `timed`: RIFE_m, whose blocks also take a plane of the timestep. `half_stride`: 2R, weights of the same shapes at
    twice the working size. Keys and shapes are upstream's, `block_tea` included.
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
        """(B,3,H,W) -> the context levels of one frame, for every pair and timestep that the frame is part of."""
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
        state = self._resume(planes, coarse)
        states: list[_Estimate] = []
        for i in range(len(coarse), len(BLOCK_SCALES)):
            output = self._output(i, planes, state, BLOCK_SCALES[i] / scale)
            state = self._warped(planes, *_add(state, output))
            states.append(state)
        assert state is not None
        flow, mask, warped0, warped1 = state
        context0 = self.contextnet.warped(features0 or self.frame_features(img0), flow[:, :2])
        context1 = self.contextnet.warped(features1 or self.frame_features(img1), flow[:, 2:4])
        residual = self.unet(img0, img1, warped0, warped1, mask, flow, context0, context1) * 2 - 1  # (B,3,H,W)
        merged = [s.blend() for s in states]
        image = ((merged[-1] if merged else state.blend()) + residual).clamp(0, 1)
        made = Prediction(image, flow, torch.sigmoid(mask), [s.flow for s in states], merged, [s.mask for s in states])
        return made if gt is None else made._replace(teaching=self._teach(planes, state, gt, made))

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
            outputs.append(self._output(i, planes, self._resume(planes, tuple(outputs)), factors[i]))
        return tuple(outputs)

    def _planes(self, img0: Tensor, img1: Tensor, timestep: float | Tensor) -> tuple[Tensor, ...]:
        """Returns the inputs of every block: both images and, if `timed`, a plane of the timestep."""
        return (img0, img1, timestep_plane(timestep, img0)) if self.timed else (img0, img1)

    def _resume(self, planes: tuple[Tensor, ...], coarse: CoarseEstimate) -> _Estimate | None:
        """Returns the estimate after the blocks whose outputs are given."""
        state: tuple[Tensor, Tensor] | None = None
        for output in coarse:
            state = _add(state, output)
        return state and self._warped(planes, *state)

    def _output(self, i: int, planes: tuple[Tensor, ...], state: _Estimate | None, scale: float) -> BlockOutput:
        """Runs block i."""
        block: IFBlock = self.get_submodule(f"block{i}")  # type: ignore[assignment]
        inputs = planes if state is None else (*planes, state.warped0, state.warped1, state.mask)
        output: BlockOutput = block([torch.cat(inputs, 1)], state and state.flow, scale)
        return output

    def _warped(self, planes: tuple[Tensor, ...], flow: Tensor, mask: Tensor) -> _Estimate:
        return _Estimate(flow, mask, *warp_both(planes[0], planes[1], flow))

    def _teach(self, planes: tuple[Tensor, ...], state: _Estimate, gt: Tensor, made: Prediction) -> Teaching:
        """Returns the estimate of a further block that also takes the ground truth (paper section 3.3)."""
        inputs = torch.cat((*planes, state.warped0, state.warped1, state.mask, gt), 1)
        taught = self._warped(planes, *_add(state, self.block_tea([inputs], state.flow, 1)))
        distillation = distillation_loss(taught.flow, taught.blend(), made.flows, made.merged, gt)
        return Teaching(taught.flow, torch.sigmoid(taught.mask), taught.blend(), distillation)


def _add(state: _Estimate | tuple[Tensor, Tensor] | None, output: BlockOutput) -> tuple[Tensor, Tensor]:
    """Returns the flow (B,4,H,W) px and the mask (B,1,H,W) in logits after a block's output."""
    flow, mask, _ = changes(output)
    return (flow, mask) if state is None else (state[0] + flow, state[1] + mask)
