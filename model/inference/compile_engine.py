"""Runs a network compiled by torch.compile, or by TensorRT through it."""

from typing import Any

import torch
from torch import Tensor

from model.contract import CoarseEstimate, Network, Prediction
from model.errors import UserError
from model.inference.engine import Engine


class CompileEngine(Engine):
    """Compiles a network for every size of images anew, which takes a minute or two, and runs the compiled program.

    Coarse blocks run step by step: once for a frame cut into tiles.
    """

    def __init__(self, net: Network, *, tensorrt: bool = False) -> None:
        super().__init__(net)
        settings: dict[str, Any] = {"fullgraph": True, "dynamic": False}
        if tensorrt:
            import torch_tensorrt  # registers the back end  # noqa: F401

            # each step in the dtype that it has in the network: only convolutions may be in half precision
            settings |= {"fullgraph": False, "backend": "torch_tensorrt", "options": {"use_explicit_typing": True}}
        self.compiled: Any = torch.compile(net, **settings)
        self.failure = torch._dynamo.exc.TorchDynamoException  # torch imports that module at the first torch.compile

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
        """Estimates the frame at the timestep, as the network does. Raises UserError if compiling fails."""
        if not isinstance(timestep, Tensor):  # a tensor is an input of the program, a number would be part of it
            timestep = torch.full((1, 1, 1, 1), timestep, device=img0.device)
        more: dict[str, Any] = {**options, "coarse": coarse} if coarse else dict(options)
        try:
            made: Prediction = self.compiled(img0, img1, timestep, features0, features1, scale=scale, **more)
        except self.failure as e:
            reason = " ".join(str(e).split())[:200]
            raise UserError(f"the network cannot be compiled here; run it without an engine: {reason}") from e
        return made
