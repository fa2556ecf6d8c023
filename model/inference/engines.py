"""What else may run a network than PyTorch step by step: CUDA graphs, torch.compile, TensorRT (`--engine`).

Each takes what the network takes and gives its prediction. Nothing here has run on a GPU yet: without one it is tested
that networks trace whole, take the same steps whatever the values, and give their own pictures.
"""

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import UserError
from model.IFNet_v4 import chooses_scales
from model.inference.graphs import Graphed
from model.networks.layers import Prediction

ENGINES = ("graphs", "compile", "tensorrt")


class Compiled:
    """A network by torch.compile, anew for every size, which takes a minute or two; by TensorRT if that is wanted."""

    def __init__(self, net: nn.Module, *, tensorrt: bool = False) -> None:
        self.net: Any = net
        how: dict[str, Any] = {"fullgraph": True, "dynamic": False}
        if tensorrt:
            import torch_tensorrt  # registers itself  # noqa: F401

            # each step in the type that the network has it in: convolutions alone may be in half precision
            how |= {"fullgraph": False, "backend": "torch_tensorrt", "options": {"use_explicit_typing": True}}
        self.compiled: Any = torch.compile(net, **how)
        self.failure = torch._dynamo.exc.TorchDynamoException  # torch imports that when it is first asked for

    def frame_features(self, image: Tensor) -> Any:
        """As the network's."""
        return self.net.frame_features(image)

    def begin(self, *images_and_more: Any, **options: Any) -> Any:
        """As the network's, step by step: once a frame that is cut into tiles."""
        return self.net.begin(*images_and_more, **options)

    def __call__(
        self, img0: Tensor, img1: Tensor, timestep: float | Tensor, features0: Any, features1: Any, **options: Any
    ) -> Prediction:
        """As the network's forward. UserError if it cannot be compiled."""
        if not isinstance(timestep, Tensor):  # a value to be filled in, not a part of the program
            timestep = torch.full((1, 1, 1, 1), timestep, device=img0.device)
        try:
            made: Prediction = self.compiled(img0, img1, timestep, features0, features1, **options)
        except self.failure as e:
            why = " ".join(str(e).split())[:200]
            raise UserError(f"the network cannot be compiled here, leave out --engine: {why}") from e
        return made


def with_engine(net: nn.Module, engine: str) -> Graphed | Compiled:
    """What to call in a network's place. UserError where its device, its kind or a missing package forbids it."""
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is none of {', '.join(ENGINES)}")
    device = next(net.parameters()).device
    if engine != "compile" and device.type != "cuda":
        raise UserError(f"--engine {engine} is for CUDA devices: leave it out on {device}")
    if chooses_scales(net):
        raise UserError("4.0 and 4.1 choose their scales by the flow they find: leave out --engine")
    if engine == "graphs":
        return Graphed(net)
    if engine == "tensorrt" and importlib.util.find_spec("torch_tensorrt") is None:
        raise UserError("--engine tensorrt needs Torch-TensorRT: python3 -m pip install torch-tensorrt")
    return Compiled(net, tensorrt=engine == "tensorrt")
