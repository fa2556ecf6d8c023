"""Writes ncnn graphs by pnnx, ncnn's own converter, with the layer rife.Warp of the ncnn programs of RIFE."""

import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import UserError
from model.export.graph import Graph, StandardOperations, resized, sample
from model.image import pad_multiple

INPUTS, OUTPUT = ("in0", "in1", "in2"), "out0"  # as pnnx names them and the programs expect
FILES = ("flownet.param", "flownet.bin", "flownet.json")  # graph, weights, metadata
WARP = "rife.Warp"
RESHAPES = (Tensor.expand, Tensor.reshape)


class Warp(nn.Module):
    """Warps an image (B,C,H,W) by a flow (B,2,H,W) px: the layer rife.Warp."""

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        """Returns the image at the positions that the flow gives."""
        return sample(image, flow)


# TorchScript and pnnx take the name of a layer from its class
Warp.__module__, Warp.__qualname__, Warp.__name__ = WARP.split(".")[0], WARP.split(".")[1], WARP.split(".")[1]


class NcnnGraph(Graph):
    """Takes img0, img1 (B,3,H,W) and timestep (B,1,H,W), padded; returns the image (B,3,H,W)."""

    def __init__(self, net: Any, *, scale: float = 1.0, **options: bool) -> None:
        super().__init__(net, scale=scale, **options)
        self.warp = Warp()

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> Tensor:
        """Runs the network with warps by the layer."""
        return self.image(img0, img1, timestep, _Operations(resized(lambda image, flow, mode: self.warp(image, flow))))


class _Operations(StandardOperations):
    """Leaves out reshapes that change no shape: pnnx would keep the sizes of the example.

    An empty last part of a split becomes a constant: ncnn's layer Slice cannot have an empty part.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls `func`, or what replaces it."""
        if func is Tensor.split and isinstance(args[1], tuple) and args[1][-1] == 0:
            whole, sizes, axis = args[0], args[1], (args[2:] or ((kwargs or {})["dim"],))[0]
            shape = [*whole.shape[:axis], 0, *whole.shape[axis + 1 :]]
            return (*whole.split(sizes[:-1], axis), torch.zeros([int(n) for n in shape]))
        result = super().__torch_function__(func, types, args, kwargs)
        if func in RESHAPES and [int(n) for n in result.shape] == [int(n) for n in args[0].shape]:
            return args[0]
        return result


def convert(net: nn.Module, *, half: bool, scale: float = 1.0, **options: bool) -> tuple[bytes, bytes]:
    """Returns the contents of .param and .bin; `half`: weights stored as float16.

    Raises UserError where pnnx is missing or fails.
    """
    try:
        import pnnx  # an optional dependency
    except ImportError as e:
        raise UserError("an ncnn graph needs ncnn's converter: python3 -m pip install pnnx") from e
    graph = NcnnGraph(net, scale=scale, **options).eval()
    side = pad_multiple(net, scale)
    shapes = ["[1,3,{0},{1}],[1,3,{0},{1}],[1,1,{0},{1}]".format(side * n, side * (3 - n)) for n in (1, 2)]
    examples = tuple(torch.rand(1, channels, side, 2 * side) for channels in (3, 3, 1))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes that are compared while tracing are the same for every size
        torch.jit.trace(graph, examples, check_trace=False).save(f"{folder}/net.pt")
        settings = [f"inputshape={shapes[0]}", f"inputshape2={shapes[1]}", f"fp16={int(half)}", f"moduleop={WARP}"]
        run = subprocess.run([pnnx.EXEC_PATH, "net.pt", *settings], cwd=folder, capture_output=True, text=True)
        made = [Path(folder) / f"net.ncnn{suffix}" for suffix in (".param", ".bin")]
        if run.returncode or not all(path.exists() for path in made):
            raise UserError(f"pnnx cannot convert this network: {' '.join(run.stderr.split())[-200:]}")
        param, weights = (path.read_bytes() for path in made)
    return param, weights
