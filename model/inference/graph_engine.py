"""Runs a network on a CUDA device by CUDA graphs: its few hundred short steps start with one command.

For frames so small that a GPU finishes a step before it is given the next one.
"""

from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from model.contract import CoarseEstimate, Network, Prediction
from model.inference.engine import Engine, Options, PairInputs, with_coarse

WARM_UP = 3  # calls before one is recorded: libraries choose algorithms and allocate their memory
MAX_RECORDINGS = 4  # each holds the memory of a call

Outputs = tuple[Tensor, ...]
# Records a call of a function with arguments. Returns its outputs, and a function that computes them again, into the
# same tensors, from the values that the arguments then have.
Recorder = Callable[[Callable[..., Outputs], tuple[Tensor, ...]], tuple[Outputs, Callable[[], None]]]


def record(run: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> tuple[Outputs, Callable[[], None]]:
    """Records one call as a CUDA graph; a Recorder."""
    with torch.cuda.device(inputs[0].device):
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run(*inputs)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # other threads may call CUDA meanwhile: they pin memory and copy frames
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = run(*inputs)
    return outputs, graph.replay


class _Recording(NamedTuple):
    """Holds a recorded call: the tensors that it reads, those that it writes, and the function that runs it again."""

    inputs: list[Tensor]
    outputs: Outputs
    replay: Callable[[], None]


class GraphEngine(Engine):
    """Records the calls of a network, one for each shape, scale and set of options, and replays them on new values.

    A prediction holds image, flow and mask only. Coarse blocks run step by step: once for a frame cut into tiles.
    """

    def __init__(self, net: Network, recorder: Recorder = record) -> None:
        super().__init__(net)
        self.recorder = recorder
        self.recordings: dict[object, _Recording] = {}
        self.lock = Lock()  # threads may share a network

    def estimate(self, pair: PairInputs, scale: float, coarse: CoarseEstimate, options: Options) -> Prediction:
        """Estimates the frame at the timestep, as the network does."""
        values, form = tree_flatten((tuple(pair.timed()), coarse))
        inputs = [value for value in values if isinstance(value, Tensor)]

        def run(*tensors: Tensor) -> Outputs:
            remaining = iter(tensors)
            filled = [next(remaining) if isinstance(value, Tensor) else value for value in values]
            inputs_of_pair, outputs = tree_unflatten(filled, form)
            return tuple(self.net(*inputs_of_pair, scale=scale, **with_coarse(options, outputs))[:3])

        key = (scale, *sorted(options), *(tuple(v.shape) if isinstance(v, Tensor) else v for v in values))
        with self.lock:
            if key not in self.recordings:
                if len(self.recordings) == MAX_RECORDINGS:
                    self.recordings.pop(next(iter(self.recordings)))
                self.recordings[key] = self._record(run, inputs)
            recording = self.recordings[key]
            for target, value in zip(recording.inputs, inputs, strict=True):
                target.copy_(value)
            recording.replay()
            image, flow, mask = (output.clone() for output in recording.outputs)  # the next call overwrites them
        return Prediction(image, flow, mask)

    def _record(self, run: Callable[..., Outputs], inputs: list[Tensor]) -> _Recording:
        copies = [value.clone() for value in inputs]
        try:
            outputs, replay = self.recorder(run, tuple(copies))
        except torch.OutOfMemoryError:
            self.recordings.clear()  # the next attempt, at smaller sizes, needs their memory
            raise
        return _Recording(copies, outputs, replay)
