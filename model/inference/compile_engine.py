"""Runs a network compiled by torch.compile, or by TensorRT through it."""

from typing import Any

import torch

from model.contract import CoarseEstimate, Network, Prediction
from model.errors import UserError
from model.inference.engine import Engine, Options, PairInputs, with_coarse


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

    def estimate(self, pair: PairInputs, scale: float, coarse: CoarseEstimate, options: Options) -> Prediction:
        """Estimates the frame at the timestep, as the network does. Raises UserError if compiling fails."""
        try:
            made: Prediction = self.compiled(*pair.timed(), scale=scale, **with_coarse(options, coarse))
        except self.failure as e:
            reason = " ".join(str(e).split())[:200]
            raise UserError(f"the network cannot be compiled here; run it without an engine: {reason}") from e
        return made
