"""Upstream's Python interface under upstream's names: `from model.RIFE import Model`. New code: model.load_model."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from model.IFNet import SCALES as PAPER_SCALES
from model.IFNet import IFNet
from model.loading import load_network
from model.networks.layers import Prediction
from model.training.loss import LapLoss
from model.weights.checkpoint import DDP_PREFIX
from model.wrapper import RIFE

DISTILLATION = 0.01  # weight of that loss; upstream advises 0.005 or 0.002 for RIFE_m


class Model:
    """Upstream's Python interface (ECCV2022-RIFE model/RIFE.py): the same names, arguments and return values.

    Images are (B,3,H,W) in 0..1, any size. `arbitrary` makes a RIFE_m, which upstream could not train for want of a
    timestep in `update`; here it is an argument.
    """

    def __init__(self, local_rank: int = -1, arbitrary: bool = False) -> None:
        self.flownet: nn.Module = IFNet(timed=arbitrary)
        self.name = "RIFE_m" if arbitrary else "RIFE"
        self.optimG = torch.optim.AdamW(self.flownet.parameters(), lr=1e-6, weight_decay=1e-3)
        self.lap = LapLoss()
        self.local_rank = local_rank
        self._rife: RIFE | None = None  # made once a network: it brings the weights into another form

    def train(self) -> None:
        """Puts the network in training mode."""
        self.flownet.train()

    def eval(self) -> None:
        """Puts the network in evaluation mode."""
        self.flownet.eval()

    def device(self) -> None:
        """Moves the network to the GPU if there is one."""
        self.flownet.to("cuda" if torch.cuda.is_available() else "cpu")

    def load_model(self, path: Path | str, rank: int = 0) -> None:
        """Loads the weights found in a folder (or file); any network of loading.py, not only the paper's."""
        if rank <= 0:
            self.flownet, self.name, _ = load_network(path)
            self.optimG = torch.optim.AdamW(self.flownet.parameters(), lr=1e-6, weight_decay=1e-3)

    def save_model(self, path: Path | str, rank: int = 0) -> None:
        """Writes `path`/flownet.pkl with the keys of an official file."""
        if rank == 0:
            state = {DDP_PREFIX + key: value for key, value in self.flownet.state_dict().items()}
            torch.save(state, Path(path) / "flownet.pkl")

    def inference(
        self,
        img0: Tensor,
        img1: Tensor,
        scale: float = 1,
        scale_list: Sequence[float] = PAPER_SCALES,
        TTA: bool = False,
        timestep: float = 0.5,
    ) -> Tensor:
        """The image between two, (B,3,H,W). The third argument is the scale, as in the paper's repository."""
        if tuple(scale_list) != PAPER_SCALES:
            scale = scale * PAPER_SCALES[-1] / scale_list[-1]
            if tuple(s * scale_list[-1] for s in PAPER_SCALES) != tuple(scale_list):
                raise ValueError(f"scale_list {tuple(scale_list)} is not a multiple of {PAPER_SCALES}")
        weight = next(self.flownet.parameters())
        rife = self._rife
        if rife is None or rife.net is not self.flownet or (rife.device, rife.dtype) != (weight.device, weight.dtype):
            rife = self._rife = RIFE(self.flownet, name=self.name)
        return rife.inference(img0, img1, timestep=timestep, scale=scale, tta=TTA)

    def update(
        self,
        imgs: Tensor,  # (B,6,H,W), both images
        gt: Tensor,  # (B,3,H,W)
        learning_rate: float = 0,
        mul: float = 1,  # upstream takes it and does not use it
        training: bool = True,
        flow_gt: Tensor | None = None,  # likewise
        timestep: float | Tensor = 0.5,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One optimiser step of the paper's recipe (or, not `training`, its losses) -> the frame and what to log."""
        for group in self.optimG.param_groups:
            group["lr"] = learning_rate
        self.flownet.train(training)
        with torch.set_grad_enabled(training):
            out: Prediction = self.flownet(imgs[:, :3], imgs[:, 3:], timestep, gt=gt)
            if not out.teachings:
                raise ValueError(f"RIFE {self.name} has no teacher: update trains the paper's networks")
            loss_l1 = self.lap(out.image, gt).mean()
            loss_tea = self.lap(out.teachings[0].merged, gt).mean()
        if training:
            self.optimG.zero_grad()
            (loss_l1 + loss_tea + DISTILLATION * out.teachings[0].distillation).backward()
            self.optimG.step()
        return out.image, {
            "merged_tea": out.teachings[0].merged,
            "mask": out.mask,
            "mask_tea": out.teachings[0].mask,
            "flow": out.flow[:, :2],
            "flow_tea": out.teachings[0].flow,
            "loss_l1": loss_l1,
            "loss_tea": loss_tea,
            "loss_distill": out.teachings[0].distillation,
        }
