"""The teacher of 4.15 and later as its author reports it: it weighs what the blocks say, and sees no ground truth."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.networks.layers import Teaching, blend, conv
from model.networks.warp import warp_both
from model.training.loss import distillation_loss

WIDTH = 32
OF_A_BLOCK = 8  # channels: flow 4, mask 1, blend 3


class Confidence(nn.Module):
    """A learned confidence in each block at each pixel; the teacher's flow is the sum of theirs that it weighs.

    Needed for training only (keys `teacher.*` of 4.15-4.26); how the published one computes its weights is not known,
    two convolutions do here.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(conv(OF_A_BLOCK * blocks, WIDTH), nn.Conv2d(WIDTH, blocks, 3, 1, 1))

    def forward(
        self,
        img0: Tensor,
        img1: Tensor,
        gt: Tensor,
        flows: Sequence[Tensor],
        masks: Sequence[Tensor],
        merged: Sequence[Tensor],
    ) -> Teaching:
        """Images (B,3,H,W), every block's flow (B,4,H,W) px, mask (B,1,H,W) logits and blend (B,3,H,W)."""
        said = [torch.cat(one, 1) for one in zip(flows, masks, merged, strict=True)]
        weights = self.weigh(torch.cat(said, 1)).softmax(1).unsqueeze(2)  # (B,blocks,1,H,W)
        flow = (weights * torch.stack(list(flows), 1)).sum(1)
        mask = torch.sigmoid((weights * torch.stack(list(masks), 1)).sum(1))
        taught = blend(*warp_both(img0, img1, flow), mask)
        return Teaching(flow, mask, taught, distillation_loss(flow, taught, flows, merged, gt))
