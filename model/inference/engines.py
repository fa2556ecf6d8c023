"""Chooses how a network runs: the CPU kernels where they are available, or an engine by its name.

The engines for CUDA devices have not run on a GPU yet. Tests on a CPU show that every network can be traced completely,
runs the same operations for all inputs, and gives the same images.
"""

import importlib.util

import torch

from model.contract import Network
from model.errors import UserError
from model.inference.compile_engine import CompileEngine
from model.inference.exported_engine import RUNTIMES, ExportedEngine, missing_packages
from model.inference.graph_engine import GraphEngine
from model.inference.kernel_engine import KernelEngine, has_kernels
from model.loading import AnyNetwork

ENGINES = ("pytorch", "graphs", "compile", "tensorrt", *RUNTIMES)


def accelerate(net: Network, *, many: bool = False) -> Network:
    """Returns the fastest form of a network for its device: a KernelEngine where there is one, else the network.

    `many`: for a video, whose frames have one size. Where there are no kernels, a network in float32 on a CPU is run by
    OpenVINO if that is installed: a quarter faster than PyTorch, after some seconds of compiling for that size.
    """
    if has_kernels(net):
        return KernelEngine(net)
    weight = next(net.parameters())
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32
    if many and plain and isinstance(net, AnyNetwork) and net.fixed_scales and not missing_packages("openvino"):
        return ExportedEngine(net, "openvino")
    return net


def with_engine(net: Network, engine: str) -> Network:
    """Returns the network run by the engine of that name, one of ENGINES; "pytorch" is the network itself.

    Raises UserError where the network, its device or a missing package does not allow the engine.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is none of {', '.join(ENGINES)}")
    device = next(net.parameters()).device
    if engine in ("graphs", "tensorrt") and device.type != "cuda":
        raise UserError(f"the engine {engine} is for CUDA devices: run the network without it on {device}")
    if engine == "pytorch":
        return net
    if not net.fixed_scales:
        raise UserError("4.0 and 4.1 choose their scales by the flow they find: run them without an engine")
    if engine in RUNTIMES:
        return ExportedEngine(net, engine)
    if engine == "graphs":
        return GraphEngine(net)
    if engine == "tensorrt" and importlib.util.find_spec("torch_tensorrt") is None:
        raise UserError("the engine tensorrt needs Torch-TensorRT: python3 -m pip install torch-tensorrt")
    return CompileEngine(net, tensorrt=engine == "tensorrt")
