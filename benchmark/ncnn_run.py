"""Runs an exported ncnn graph by the package `ncnn`, with its warps by ncnn's own layers.

The ncnn programs of RIFE define the layer rife.Warp in C++. The package's Python interface gives a layer with two
inputs copies of its outputs, so the layer cannot be defined there; `with_grid_sample` writes it as layers of ncnn.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.export.ncnn import INPUTS, OUTPUT, WARP

GRID_INPUTS = ("step", "origin")  # size of a pixel and coordinates of each pixel, both (2,H,W), in -1..1


def with_grid_sample(param: str) -> str:
    """Returns a .param whose warps are `GridSample` at flow * step + origin; two more inputs hold step and origin."""
    magic, _, *lines = param.splitlines()
    layers = [line.split() for line in lines if line.strip()]
    warps = [layer for layer in layers if layer[0] == WARP]
    made = [["Input", name, "0", "1", name] for name in GRID_INPUTS]
    for name in GRID_INPUTS:
        made.append(["Split", f"split_{name}", "1", str(len(warps)), name, *(f"{name}{i}" for i in range(len(warps)))])
    for layer in layers:
        if layer[0] != WARP:
            made.append(layer)
            continue
        kind, name, *counts = layer[:4]
        if counts != ["2", "1"]:
            raise ValueError(f"{kind} {name} has {counts[0]} inputs and {counts[1]} outputs in place of 2 and 1")
        image, flow, warped = layer[4:7]
        i = warps.index(layer)
        made += [
            ["BinaryOp", f"{name}_scaled", "2", "1", flow, f"step{i}", f"{name}_scaled", "0=2"],  # a product
            ["BinaryOp", f"{name}_grid", "2", "1", f"{name}_scaled", f"origin{i}", f"{name}_grid", "0=0"],  # a sum
            # bilinear, borders repeated, aligned corners, coordinates (2,H,W)
            ["GridSample", name, "2", "1", image, f"{name}_grid", warped, "0=1", "1=2", "2=1", "3=1"],
        ]
    blobs = {blob for layer in made for blob in layer[4 : 4 + int(layer[2]) + int(layer[3])]}
    return "\n".join([magic, f"{len(made)} {len(blobs)}", *(" ".join(layer) for layer in made)]) + "\n"


def load(param: str, weights: bytes, folder: str) -> Any:
    """Returns a network of the package `ncnn` in float32 on one thread; its files are written to `folder`."""
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "winograd_convolution"):
        setattr(net.opt, f"use_{option}", False)
    names = f"{folder}/grid.param", f"{folder}/grid.bin"
    with open(names[0], "w") as file:
        file.write(with_grid_sample(param))
    with open(names[1], "wb") as binary:
        binary.write(weights)
    if net.load_param(names[0]) or net.load_model(names[1]):
        raise ValueError("ncnn cannot load the graph")
    return net


def runner(param: str, weights: bytes, folder: str, timestep: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns a function from two images (1,3,H,W), padded, to the image at `timestep` between them, in 0..1."""
    import ncnn

    net = load(param, weights, folder)

    def run(img0: Tensor, img1: Tensor) -> Tensor:
        height, width = img0.shape[2:]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        step_x, step_y = 2 / (width - 1), 2 / (height - 1)
        arrays = [
            img0[0].numpy(),
            img1[0].numpy(),
            np.full((1, height, width), timestep, np.float32),
            np.stack((np.full_like(x, step_x), np.full_like(y, step_y))),
            np.stack((x * step_x - 1, y * step_y - 1)),
        ]
        mats = [ncnn.Mat(np.ascontiguousarray(array)) for array in arrays]
        extractor = net.create_extractor()
        for name, mat in zip((*INPUTS, *GRID_INPUTS), mats, strict=True):
            extractor.input(name, mat)
        status, made = extractor.extract(OUTPUT)
        if status:
            raise ValueError(f"ncnn stops with {status}")
        return torch.from_numpy(np.array(made))[None].clamp(0, 1)

    return run
