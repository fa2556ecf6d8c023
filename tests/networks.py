"""Builds one narrow network of every kind, with random weights."""

from collections.abc import Callable
from dataclasses import replace

import torch
from conftest import TINY

from model.IFNet import IFNet
from model.IFNet_HD import IFNet_HD, IFNet_HDv2, IFNet_HDv3
from model.IFNet_v4 import IFNet_v4
from model.loading import AnyNetwork
from model.weights.published import PUBLISHED

V3_9 = replace(PUBLISHED["3.9"], channels=(16, 16, 8, 8), refine=True)
NETWORKS: dict[str, Callable[[], AnyNetwork]] = {
    "default": lambda: IFNet_v4(replace(TINY, sharp=True, pad_mode="replicate")),
    "3.9": lambda: IFNet_v4(V3_9),
    "paper": IFNet,
    "RIFE_m": lambda: IFNet(timed=True),
    "2R": lambda: IFNet(half_stride=True),
    "HD 1": IFNet_HD,
    "HD 2": IFNet_HDv2,
    "HD 3": lambda: IFNet_HDv2(paired=True),
    "HD 3.8": IFNet_HDv3,
}


def build(name: str) -> AnyNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return NETWORKS[name]().eval()
