"""Other engines that run the same network, for comparison: OpenVINO on a CPU."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from model import RIFE, UserError
from model.image import padder_for

TOLERANCE = 1e-4  # of a picture in 0..1, between an engine and ours


class _Middle(nn.Module):
    """Runs the network's forward at timestep 0.5 and a fixed scale."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, img0: Tensor, img1: Tensor) -> Tensor:
        image: Tensor = self.net(img0, img1, 0.5, scale=self.scale).image
        return image


def openvino_inference(model: RIFE, height: int, width: int, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns a function like RIFE.inference for one size, run by OpenVINO in float32 on torch's number of threads.

    The graph of torch.export is compiled for low latency at a fixed shape. An image is valid until the next call.
    UserError if OpenVINO is not installed or cannot run the network.
    """
    try:
        import openvino  # an optional dependency
    except ImportError as e:
        raise UserError("the setting openvino needs OpenVINO: python3 -m pip install openvino packaging") from e
    if model.device.type != "cpu":
        raise UserError(f"the setting openvino runs on the processor: give --device cpu, not {model.device}")
    padder = padder_for(model.engine, height, width, scale)
    example = tuple(padder.pad(torch.zeros(1, 3, height, width)) for _ in range(2))  # one tensor twice is one input
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of both libraries about each other
            graph = openvino.convert_model(torch.export.export(_Middle(model.net, scale).eval(), example))
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        compiled: Any = openvino.Core().compile_model(graph, "CPU", options)
    except Exception as e:  # of many kinds in both libraries
        why = " ".join(str(e).split())[:120]
        raise UserError(f"OpenVINO cannot run {model.name}, leave the setting openvino out: {why}") from e
    request = compiled.create_infer_request()

    def infer(img0: Tensor, img1: Tensor) -> Tensor:
        arrays = [padder.pad(image).numpy() for image in (img0, img1)]
        (made,) = request.infer(arrays, share_inputs=True, share_outputs=True).values()
        return padder.unpad(torch.from_numpy(made))

    return infer


def check_agreement(name: str, made: Tensor, ours: Tensor) -> None:
    """Raises UserError if two pictures differ by more than float32 explains: comparing their times is then useless."""
    error = (made - ours).abs().max().item()
    if not error <= TOLERANCE:  # NaN is no agreement either
        raise UserError(f"{name} and ours are {error:.1e} apart, {TOLERANCE:g} is allowed: leave that setting out")
