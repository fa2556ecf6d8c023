"""Chooses how a network runs: the CPU kernels where they are available, or an engine by its name.

The engines for CUDA devices have not run on a GPU yet: tests without one show that every network traces whole, takes
the same steps whatever the values, and gives its own images.
"""

import importlib.util

from model.contract import Network
from model.errors import UserError
from model.inference.compile_engine import CompileEngine
from model.inference.graph_engine import GraphEngine
from model.inference.kernel_engine import KernelEngine, has_kernels

ENGINES = ("graphs", "compile", "tensorrt")


def accelerate(net: Network) -> Network:
    """Returns the fastest form of a network for its device: a KernelEngine where there is one, else the network."""
    return KernelEngine(net) if has_kernels(net) else net


def with_engine(net: Network, engine: str) -> Network:
    """Returns the network run by the engine of that name, one of ENGINES.

    Raises UserError where the network, its device or a missing package does not allow the engine.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is none of {', '.join(ENGINES)}")
    device = next(net.parameters()).device
    if engine != "compile" and device.type != "cuda":
        raise UserError(f"the engine {engine} is for CUDA devices: run the network without it on {device}")
    if not net.fixed_scales:
        raise UserError("4.0 and 4.1 choose their scales by the flow they find: run them without an engine")
    if engine == "graphs":
        return GraphEngine(net)
    if engine == "tensorrt" and importlib.util.find_spec("torch_tensorrt") is None:
        raise UserError("the engine tensorrt needs Torch-TensorRT: python3 -m pip install torch-tensorrt")
    return CompileEngine(net, tensorrt=engine == "tensorrt")
