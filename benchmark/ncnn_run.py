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

ORIGIN = "origin"  # an input: coordinates of each pixel (2,H,W), in 0..2: from 0, so that small steps are exact
# Parameters of layers of ncnn
TARGET_SIZE = ("0=2", "5=1", "6=1")  # Interp: bilinear, to the size of the second input, aligned corners
BORDER = ("0=1", "1=2", "2=1", "3=1")  # GridSample: bilinear, borders repeated, aligned corners, coordinates (2,H,W)
SUM, DIFFERENCE, PRODUCT = "0=0", "0=1", "0=2"  # BinaryOp
LESS_ONE = (DIFFERENCE, "1=1", "2=1.0")


def _crop(axis: int, start: int) -> tuple[str, ...]:
    """Returns the parameters of Crop for one column (axis 2) or row (axis 1) of a blob (C,H,W)."""
    return f"-23309=1,{start}", f"-23310=1,{start + 1}", f"-23311=1,{axis}"


def _grid(name: str, flow: str, origin: str) -> list[list[str]]:
    """Returns the layers that make the coordinates `NAME_grid` of a flow (2,h,w) in pixels, of any size.

    The coordinates of the frame are resized to those of the flow; the differences of neighbours are the steps.
    """
    layers = [
        ["Split", f"{name}_flows", "1", "2", flow, f"{name}_flow0", f"{name}_flow1"],
        ["Interp", f"{name}_resized", "2", "1", origin, f"{name}_flow0", f"{name}_resized", *TARGET_SIZE],
        ["Split", f"{name}_origins", "1", "5", f"{name}_resized", *(f"{name}_origin{i}" for i in range(5))],
    ]
    for i, (axis, start) in enumerate(((2, 1), (2, 0), (1, 1), (1, 0))):
        layers.append(
            ["Crop", f"{name}_line{i}", "1", "1", f"{name}_origin{i}", f"{name}_line{i}", *_crop(axis, start)]
        )
    for made, first, second, operation in (
        ("step_x", "line0", "line1", DIFFERENCE),  # (2,h,1), zero in the plane of y
        ("step_y", "line2", "line3", DIFFERENCE),  # (2,1,w), zero in the plane of x
        ("step", "step_x", "step_y", SUM),
        ("scaled", "flow1", "step", PRODUCT),
        ("moved", "scaled", "origin4", SUM),
    ):
        blobs = [f"{name}_{blob}" for blob in (made, first, second, made)]
        layers.append(["BinaryOp", blobs[0], "2", "1", *blobs[1:], operation])
    layers.append(["BinaryOp", f"{name}_grid", "1", "1", f"{name}_moved", f"{name}_grid", *LESS_ONE])
    return layers


def with_grid_sample(param: str) -> str:
    """Returns a .param whose warps are layers of ncnn, for flows of any size; one more input holds ORIGIN."""
    magic, _, *lines = param.splitlines()
    layers = [line.split() for line in lines if line.strip()]
    warps = [layer for layer in layers if layer[0] == WARP]
    origins = [f"{ORIGIN}{i}" for i in range(len(warps))]
    made = [["Input", ORIGIN, "0", "1", ORIGIN], ["Split", "origins", "1", str(len(warps)), ORIGIN, *origins]]
    for layer in layers:
        if layer[0] != WARP:
            made.append(layer)
            continue
        kind, name, *counts = layer[:4]
        if counts != ["2", "1"]:
            raise ValueError(f"{kind} {name} has {counts[0]} inputs and {counts[1]} outputs in place of 2 and 1")
        image, flow, warped = layer[4:7]
        made += _grid(name, flow, origins[warps.index(layer)])
        made.append(["GridSample", name, "2", "1", image, f"{name}_grid", warped, *BORDER])
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
        arrays = [
            img0[0].numpy(),
            img1[0].numpy(),
            np.full((1, height, width), timestep, np.float32),
            np.stack((x * (2 / (width - 1)), y * (2 / (height - 1)))),
        ]
        mats = [ncnn.Mat(np.ascontiguousarray(array)) for array in arrays]
        extractor = net.create_extractor()
        for name, mat in zip((*INPUTS, ORIGIN), mats, strict=True):
            extractor.input(name, mat)
        status, made = extractor.extract(OUTPUT)
        if status:
            raise ValueError(f"ncnn stops with {status}")
        return torch.from_numpy(np.array(made))[None].clamp(0, 1)

    return run
