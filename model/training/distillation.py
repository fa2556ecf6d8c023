"""Runs another network as the teacher: its flow and mask are the target where its frame is near the true frame."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.image import padder_for

TRUST_ERROR = 0.03  # mean absolute error of the teacher's frame, in 0..1, at which its trust falls to 1/e
TRUST_WINDOW = 9  # px; side of the squares over which that error is averaged
MIDDLE_TOLERANCE = 1e-3  # largest distance of a timestep from 1/2 at which a midpoint network can teach


class DistillationTarget(NamedTuple):
    """Holds the flow and mask of a teacher for a batch, and the weight of each pixel."""

    flow: Tensor  # (B,4,H,W) px, F(t->0) and F(t->1)
    mask: Tensor  # (B,1,H,W) in 0..1, the weight of the warped img0
    trust: Tensor  # (B,1,H,W) in 0..1, near 1 where the teacher's frame equals the true frame


class TeacherNetwork:
    """Runs a trained network of any kind on training batches; the network is never changed."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, img0: Tensor, img1: Tensor, timestep: Tensor, gt: Tensor) -> DistillationTarget:
        """Returns the target for images (B,3,H,W) in 0..1 at timesteps (B,1,1,1).

        At other timesteps than 1/2, the trust of a network for the middle frame is 0.
        """
        padder = padder_for(self.net, *gt.shape[2:])
        out = self.net(padder.pad(img0), padder.pad(img1), timestep)
        flow, mask, image = (padder.unpad(value.float()) for value in (out.flow, out.mask, out.image.clamp(0, 1)))
        error = F.avg_pool2d((image - gt).abs().mean(1, True), TRUST_WINDOW, 1, TRUST_WINDOW // 2)
        trust = torch.exp(-error / TRUST_ERROR)
        if not self.net.arbitrary_time:
            trust = trust * ((timestep - 0.5).abs() < MIDDLE_TOLERANCE)
        return DistillationTarget(flow, mask, trust)
