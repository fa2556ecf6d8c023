"""Defines the base class of the engines: each runs a network in another way, with the interface of a network."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.contract import CoarseEstimate, Network, Prediction

Options = dict[str, bool]  # those of a call that are on: "ensemble", "refine"


class PairInputs(NamedTuple):
    """Holds the inputs of a call by position, as in Network."""

    img0: Tensor  # (B,3,H,W)
    img1: Tensor
    timestep: float | Tensor
    features0: Any
    features1: Any

    def timed(self) -> "PairInputs":
        """Returns the inputs with the timestep as a tensor, which is an input of a program; a number is a part."""
        if isinstance(self.timestep, Tensor):
            return self
        return self._replace(timestep=torch.full((1, 1, 1, 1), self.timestep, device=self.img0.device))


def with_coarse(options: Options, coarse: CoarseEstimate) -> dict[str, Any]:
    """Returns the options of a call, with the outputs of coarse blocks if there are any."""
    return {**options, "coarse": coarse} if coarse else dict(options)


class Engine:
    """Runs `net` in another way: a subclass overrides methods, all others call the network."""

    def __init__(self, net: Network) -> None:
        self.net = net

    @property
    def title(self) -> str:
        """Returns the name of the library that runs the network, for the user; "" for PyTorch and the CPU kernels."""
        return str(getattr(self.net, "title", ""))

    @property
    def arbitrary_time(self) -> bool:
        return self.net.arbitrary_time

    @property
    def pad_multiple(self) -> int:
        return self.net.pad_multiple

    @property
    def pad_mode(self) -> str:
        return self.net.pad_mode

    @property
    def options(self) -> frozenset[str]:
        return self.net.options

    @property
    def fixed_scales(self) -> bool:
        return self.net.fixed_scales

    @property
    def has_coarse_stage(self) -> bool:
        return self.net.has_coarse_stage

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.net.parameters()

    def frame_features(self, image: Tensor) -> Any:
        return self.net.frame_features(image)

    def estimate_coarse(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor,
        features0: Any,
        features1: Any,
        *,
        scale: float = 1.0,
        **options: bool,
    ) -> CoarseEstimate:
        """Runs the coarse blocks alone, as the network does."""
        return self.run_coarse(PairInputs(img0, img1, timestep, features0, features1), scale, options)

    def run_coarse(self, pair: PairInputs, scale: float, options: Options) -> CoarseEstimate:
        """Runs the coarse blocks alone; a subclass may override this."""
        features = pair.features0, pair.features1
        return self.net.estimate_coarse(pair.img0, pair.img1, pair.timestep, *features, scale=scale, **options)

    def __call__(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor,
        features0: Any,
        features1: Any,
        *,
        scale: float = 1.0,
        coarse: CoarseEstimate = (),
        **options: bool,
    ) -> Prediction:
        """Estimates the frame at the timestep, as the network does."""
        return self.estimate(PairInputs(img0, img1, timestep, features0, features1), scale, coarse, options)

    def estimate(self, pair: PairInputs, scale: float, coarse: CoarseEstimate, options: Options) -> Prediction:
        """Estimates the frame at the timestep; every subclass has its own way. `coarse` is () if no block has run."""
        raise NotImplementedError
