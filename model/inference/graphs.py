"""A network on a CUDA device whose calls are recorded as graphs: its few hundred short steps are given as one.

For frames so small that a GPU is done with a step before it has been given the next.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from model.networks.layers import Prediction

WARM_UP = 3  # calls before one is recorded: libraries choose algorithms and take their memory
KEPT = 4  # recordings; each holds the memory of a call

Outputs = tuple[Tensor, ...]
# From a function and its arguments: what it returned, and what makes it return that anew, in the same tensors, from
# what the arguments hold by then.
Recorder = Callable[[Callable[..., Outputs], tuple[Tensor, ...]], tuple[Outputs, Callable[[], None]]]


def record(run: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> tuple[Outputs, Callable[[], None]]:
    """A CUDA graph of one call."""
    with torch.cuda.device(inputs[0].device):
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                run(*inputs)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # other threads may go on meanwhile: they pin memory and wait for frames
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = run(*inputs)
    return outputs, graph.replay


class _Call(NamedTuple):
    """A recorded call: where it takes its values from, and where it leaves them."""

    inputs: list[Tensor]
    outputs: Outputs
    replay: Callable[[], None]


class Graphed:
    """A network whose calls are recorded, one for each shape, scale and set of options, and replayed on new values.

    It takes what the network takes and gives its image, flow and mask.
    """

    def __init__(self, net: nn.Module, recorder: Recorder = record) -> None:
        self.net: Any = net
        self.recorder = recorder
        self.calls: dict[object, _Call] = {}
        self.lock = Lock()  # threads may share a network

    def frame_features(self, image: Tensor) -> Any:
        """As the network's."""
        return self.net.frame_features(image)

    def begin(self, *images_and_more: Any, **options: Any) -> Any:
        """As the network's, step by step: once a frame that is cut into tiles."""
        return self.net.begin(*images_and_more, **options)

    def __call__(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor,
        features0: Any,
        features1: Any,
        *,
        scale: float = 1.0,
        **options: Any,
    ) -> Prediction:
        """As the network's forward."""
        if not isinstance(timestep, Tensor):  # a value to be filled in, not a part of the recording
            timestep = torch.full((1, 1, 1, 1), timestep, device=img0.device)
        values, form = tree_flatten(((img0, img1, timestep, features0, features1), options))
        given = [value for value in values if isinstance(value, Tensor)]

        def run(*tensors: Tensor) -> Outputs:
            rest = iter(tensors)
            filled = [next(rest) if isinstance(value, Tensor) else value for value in values]
            images_and_more, others = tree_unflatten(filled, form)
            return tuple(self.net(*images_and_more, scale=scale, **others)[:3])

        key = (scale, *sorted(options), *(tuple(v.shape) if isinstance(v, Tensor) else v for v in values))
        with self.lock:
            if key not in self.calls:
                if len(self.calls) == KEPT:
                    self.calls.pop(next(iter(self.calls)))
                self.calls[key] = self._record(run, given)
            call = self.calls[key]
            for place, value in zip(call.inputs, given, strict=True):
                place.copy_(value)
            call.replay()
            image, flow, mask = (made.clone() for made in call.outputs)  # before the next call overwrites them
        return Prediction(image, flow, mask)

    def _record(self, run: Callable[..., Outputs], given: list[Tensor]) -> _Call:
        inputs = [value.clone() for value in given]
        try:
            outputs, replay = self.recorder(run, tuple(inputs))
        except torch.OutOfMemoryError:
            self.calls.clear()  # what is tried next needs the memory
            raise
        return _Call(inputs, outputs, replay)
