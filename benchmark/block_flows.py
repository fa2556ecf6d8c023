"""Measures the error of a network's flow after each of its blocks, on exact camera pans."""

import itertools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmark.methods import NetworkMethod
from model import RIFE
from model.image import to_tensor

SIZE = 512  # px a side of a frame
PAN_BANDS = ((4, 50), (50, 100), (100, 150), (150, 200))  # px from the first frame to the last
PANS = 8  # of each band


def draw_pans(band: tuple[int, int], seed: int = 0) -> list[tuple[int, int]]:
    """Returns PANS motions (right, down) in even px, their lengths spread over the band, in random directions."""
    generator = np.random.default_rng((seed, *band))
    lengths = np.linspace(*band, PANS + 1)[:-1] + (band[1] - band[0]) / PANS / 2
    angles = generator.uniform(0, 2 * np.pi, PANS)
    halves = np.stack((np.cos(angles), np.sin(angles)), 1) * lengths[:, None] / 2
    return [(2 * int(x), 2 * int(y)) for x, y in halves.round()]


def crop(picture: np.ndarray, right: int, down: int) -> np.ndarray:
    """Returns the middle SIZE x SIZE of a picture, moved by whole px; a picture that is too small is enlarged."""
    needed = SIZE + PAN_BANDS[-1][1]
    factor = needed / min(picture.shape[:2])
    if factor > 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    y, x = (picture.shape[0] - SIZE) // 2 + down, (picture.shape[1] - SIZE) // 2 + right
    return picture[y : y + SIZE, x : x + SIZE]


@contextmanager
def recorded_flows(net: nn.Module) -> Iterator[list[Tensor]]:
    """Yields a list that receives the flow (B,4,H,W) px that each block but the first is given as its input.

    A block's input flow is what the blocks before it estimated together. Networks whose blocks take no flow of the
    frame's size (HD 1.x-3.1) give none.
    """
    flows: list[Tensor] = []
    seen: set[nn.Module] = set()

    def record(block: nn.Module, inputs: tuple[Any, ...]) -> None:
        if block not in seen and len(inputs) > 1 and isinstance(inputs[1], Tensor) and inputs[1].shape[1] == 4:
            flows.append(inputs[1])
        seen.add(block)  # HD 3.x runs each block a second time with the frames exchanged

    names = itertools.takewhile(lambda name: hasattr(net, name), (f"block{i}" for i in itertools.count(1)))
    handles = [net.get_submodule(name).register_forward_pre_hook(record) for name in names]
    try:
        yield flows
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def block_errors(model: RIFE, picture: np.ndarray, right: int, down: int) -> list[float]:
    """Returns the mean absolute error in px of the flow's four components after each block, for one pan.

    Only pixels that both frames show count.
    """
    first, last = (to_tensor(crop(picture, s * right // 2, s * down // 2), model.device) for s in (-1, 1))
    net: Any = model.net
    with recorded_flows(net) as flows:
        final = net(first, last, 0.5).flow
    # content that the camera leaves behind moves against the camera's motion
    truth = final.new_tensor([right / 2, down / 2, -right / 2, -down / 2]).view(1, 4, 1, 1)
    x, y = abs(right) // 2, abs(down) // 2
    return [(flow - truth)[..., y : SIZE - y, x : SIZE - x].abs().mean().item() for flow in (*flows, final)]


def measure_blocks(pictures: Mapping[str, np.ndarray], networks: Mapping[str, NetworkMethod]) -> dict[str, Any]:
    """Returns the mean errors of each network by band of motion, each band's pans shared out over the pictures."""
    bands = []
    for band in PAN_BANDS:
        pans = draw_pans(band)
        views = list(zip(pans, itertools.cycle(pictures.values()), strict=False))
        length = float(np.mean([abs(side) / 2 for pan in pans for side in pan]))
        record: dict[str, Any] = {"from": band[0], "to": band[1], "flow": length, "errors": {}}
        for name, network in networks.items():
            bar = tqdm(views, unit="pan", file=sys.stderr, desc=f"{band[0]}-{band[1]} px")
            errors = [block_errors(network.model, picture, *pan) for pan, picture in bar]
            record["errors"][name] = np.mean(errors, 0).tolist()
        bands.append(record)
    return {"set": "flow after each block", "pictures": list(pictures), "bands": bands}


def render_blocks(report: Mapping[str, Any]) -> str:
    """Returns the tables: for each network a row a band and a column a block."""
    lines = [f"Mean error of the flow's components in px, {SIZE} px frames, {PANS} pans a band"]
    for name in report["bands"][0]["errors"]:
        count = len(report["bands"][0]["errors"][name])
        heads = "".join(f"{f'block {i}':>9}" for i in range(count))
        lines += ["", name, f"{'motion in px':>12}{heads}{'true flow':>12}"]
        for band in report["bands"]:
            errors = "".join(f"{error:9.2f}" for error in band["errors"][name])
            motion = f"{band['from']}-{band['to']}"
            lines.append(f"{motion:>12}{errors}{band['flow']:12.1f}")
    return "\n".join(lines)
