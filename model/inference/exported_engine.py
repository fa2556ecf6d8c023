"""Runs a network by ONNX Runtime or OpenVINO: its exported graph, made at the first use and kept in a cache.

The graph is that of the frame between two prepared frames, for every size; the features of a frame are computed by the
network itself. A graph that was just made must give the network's own result on a small pair of images, or it is not
used.
"""

import copy
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.contract import CoarseEstimate, Network, Prediction
from model.errors import UserError
from model.export.graph import TENSOR, Between, flatten_call
from model.export.onnx_graph import BATCH, HEIGHT, WIDTH, finish, trace
from model.image import pad_multiple
from model.inference.engine import Engine, Options, PairInputs
from model.inference.graph_cache import cache_folder, read_graph, write_graph
from model.networks.layers import timestep_plane

GRAPH_VERSION = 2  # changes when graphs of the same weights change: those in the cache are then made anew
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2}  # mean difference allowed to the network
OUTPUTS = ("image", "flow", "mask")
OPENVINO = ("OpenVINO", "openvino onnx")
# Titles and packages of the runtimes. OpenVINO runs on a processor, or on Intel's graphics and neural processors.
RUNTIMES = {
    "onnxruntime": ("ONNX Runtime", "onnxruntime onnx"),
    "openvino": OPENVINO,
    "openvino-gpu": OPENVINO,
    "openvino-npu": OPENVINO,
}
SMOOTH = 16  # px between the random values of example images: on white noise a network enlarges rounding 1000 times
MAX_COMPILED = 8  # sizes for which OpenVINO keeps a compiled graph

Arrays = Sequence[np.ndarray]


def missing_packages(runtime: str) -> str | None:
    """Returns the packages of a runtime if one is missing, otherwise None."""
    packages = RUNTIMES[runtime][1]
    return None if all(importlib.util.find_spec(name) for name in packages.split()) else packages


class _OnnxRuntime:
    """Runs one ONNX file by ONNX Runtime, on the device that its installed package serves."""

    def __init__(self, content: bytes, device: torch.device) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; warnings are of its own optimizer
        providers = _providers(onnxruntime.get_available_providers(), device)
        self.session = onnxruntime.InferenceSession(content, options, providers=providers)
        self.inputs = {value.name for value in self.session.get_inputs()}

    def run(self, named: Mapping[str, np.ndarray]) -> Arrays:
        """Returns the outputs for named inputs; an input that the graph does not use is left out."""
        outputs: Arrays = self.session.run(None, {name: x for name, x in named.items() if name in self.inputs})
        return outputs


def _providers(available: Sequence[str], device: torch.device) -> list[Any]:
    """Returns the providers of ONNX Runtime to try in turn: of the device, DirectML on Windows, and the processor."""
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in available:
            raise UserError("ONNX Runtime is installed without CUDA: python3 -m pip install onnxruntime-gpu")
        return [("CUDAExecutionProvider", {"device_id": device.index or 0}), "CPUExecutionProvider"]
    wanted = ["CoreMLExecutionProvider"] if device.type == "mps" else ["DmlExecutionProvider"]
    return [name for name in (*wanted, "CPUExecutionProvider") if name in available]


class _OpenVino:
    """Runs one ONNX file by OpenVINO on one of its devices, compiled for each size of its inputs."""

    def __init__(self, content: bytes, place: str) -> None:
        """Reads the graph; `place`: CPU, GPU or NPU."""
        import openvino

        self.core: Any = openvino.Core()
        self.graph: Any = self.core.read_model(content, b"")
        self.place = place
        self.options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if place != "NPU":  # which computes in half precision alone
            self.options["INFERENCE_PRECISION_HINT"] = "f32"  # else coordinates too may be in half precision
        if place == "CPU":
            self.options["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
        self.inputs = {value.get_any_name() for value in self.graph.inputs}
        self.requests: dict[object, Any] = {}

    def run(self, named: Mapping[str, np.ndarray]) -> Arrays:
        """Returns the outputs for named inputs; an input that the graph does not use is left out."""
        used = {name: x for name, x in named.items() if name in self.inputs}
        key = tuple((name, x.shape) for name, x in used.items())
        if key not in self.requests:
            if len(self.requests) == MAX_COMPILED:
                self.requests.pop(next(iter(self.requests)))
            sized = self.graph.clone()
            sized.reshape({name: list(x.shape) for name, x in used.items()})
            self.requests[key] = self.core.compile_model(sized, self.place, self.options).create_infer_request()
        return [np.array(x) for x in self.requests[key].infer(used, share_inputs=True).values()]


class ExportedEngine(Engine):
    """Runs a network's exported graphs by a runtime, one of RUNTIMES; a prediction holds image, flow and mask."""

    def __init__(self, net: Network, runtime: str, folder: Path | None = None) -> None:
        """Stores graphs in `folder`, by default `cache_folder`. UserError if the runtime cannot run the network."""
        super().__init__(net)
        title, packages = RUNTIMES[runtime]
        if missing_packages(runtime):
            raise UserError(f"the engine {runtime} needs {title}: python3 -m pip install {packages}")
        weight = next(net.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        if self.dtype == torch.bfloat16:
            raise UserError(f"the engine {runtime} computes in single precision here: leave half precision out")
        if runtime != "onnxruntime":
            self._check_openvino(runtime)
        self.runtime, self.folder = runtime, folder or cache_folder()
        self.lock = Lock()  # threads may share a network
        self.programs: dict[str, _OnnxRuntime | _OpenVino] = {}
        self.digest = weights_digest(net)

    @property
    def title(self) -> str:
        """Returns the name of the runtime, with OpenVINO's device if that is not the processor."""
        place = "" if _openvino_device(self.runtime) == "CPU" else f" on {_openvino_device(self.runtime)}"
        return RUNTIMES[self.runtime][0] + place

    def _check_openvino(self, runtime: str) -> None:
        """Raises UserError unless OpenVINO finds the device of the runtime, and tensors are in main memory."""
        import openvino

        if self.device.type != "cpu":
            raise UserError(
                f"the engine {runtime} takes frames from main memory, not {self.device}: choose the device cpu"
            )
        place, found = _openvino_device(runtime), openvino.Core().available_devices
        if not any(name.split(".")[0] == place for name in found):  # several are GPU.0, GPU.1
            raise UserError(
                f"OpenVINO finds no {place} here, but {', '.join(found)}: install its driver, or choose openvino"
            )

    def estimate(self, pair: PairInputs, scale: float, coarse: CoarseEstimate, options: Options) -> Prediction:
        """Estimates the frame at the timestep, as the network does. Raises UserError if the graph cannot be made."""
        plane = timestep_plane(pair.timestep, pair.img0)
        tensors, values, form = flatten_call(pair.img0, pair.img1, plane, pair.features0, pair.features1, coarse)
        graph = Between(self.net, form, values, scale=scale, **options)
        key = repr((scale, sorted(options), str(form), [value for value in values if value is not TENSOR]))
        with self.lock:
            if key not in self.programs:
                self.programs[key] = self._load(graph, key, tensors)
            image, flow, mask = self._run(self.programs[key], tensors)
        return Prediction(image, flow, mask)

    def _run(self, program: "_OnnxRuntime | _OpenVino", tensors: Sequence[Tensor]) -> list[Tensor]:
        arrays = [tensor.contiguous().cpu().numpy() for tensor in tensors]
        try:
            outputs = program.run(dict(zip(_names(tensors), arrays, strict=True)))
        except Exception as e:  # of many kinds in these libraries
            raise self._refusal(e) from e
        return [torch.from_numpy(x).to(self.device) for x in outputs]

    def _refusal(self, error: Exception) -> UserError:
        why = " ".join(str(error).split())[:120]
        return UserError(f"{self.title} cannot run this network; run it by another engine, such as pytorch: {why}")

    def _program(self, content: bytes) -> "_OnnxRuntime | _OpenVino":
        if self.runtime == "onnxruntime":
            return _OnnxRuntime(content, self.device)
        return _OpenVino(content, _openvino_device(self.runtime))

    def _load(self, graph: Between, key: str, tensors: Sequence[Tensor]) -> "_OnnxRuntime | _OpenVino":
        """Returns the program of a graph, from the cache or newly made and checked."""
        whole = f"{GRAPH_VERSION} {torch.__version__} {self.runtime} {self.dtype} {self.digest} {key}"
        path = self.folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:32]}.graph"
        kept = read_graph(path)
        if kept is not None:
            with suppress(Exception):  # of many kinds: the graph is made anew
                return self._program(kept)
        try:
            content = self._export(graph, tensors)
            program = self._program(content)
        except UserError:
            raise
        except Exception as e:  # of many kinds in these libraries
            raise self._refusal(e) from e
        self._check(graph, program, tensors)
        with suppress(OSError):  # without a writable cache, this process uses the graph all the same
            write_graph(path, content)
        return program

    def _export(self, graph: Between, tensors: Sequence[Tensor]) -> bytes:
        """Returns the ONNX file of a graph, traced on the processor with small tensors of the same kinds."""
        net = copy.deepcopy(self.net).cpu().requires_grad_(False)  # type: ignore[attr-defined]
        traced = Between(net, graph.form, graph.values, scale=graph.scale, **graph.options).eval()
        examples = self._examples(graph, tensors)
        names = _names(tensors)
        axes = {name: {0: BATCH, 2: f"{HEIGHT}_{i}", 3: f"{WIDTH}_{i}"} for i, name in enumerate(names)}
        axes |= {name: {0: BATCH, 2: HEIGHT, 3: WIDTH} for name in OUTPUTS}
        content = trace(traced, [x.contiguous().cpu() for x in examples], names, OUTPUTS, axes)
        return finish(content, {"weights_sha256": self.digest, "scale": f"{graph.scale:g}"})

    def _examples(self, graph: Between, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Returns smooth random tensors for a frame of a few paddings, on the device, in 0..1."""
        side = pad_multiple(self.net, graph.scale)
        height, width = tensors[0].shape[2:]
        small = (2 * side, 3 * side)
        generator = torch.Generator().manual_seed(0)

        def example(x: Tensor) -> Tensor:
            shape = (1, x.shape[1], small[0] * x.shape[2] // height, small[1] * x.shape[3] // width)
            coarse = torch.rand((*shape[:2], *(n // SMOOTH + 2 for n in shape[2:])), generator=generator)
            return F.interpolate(coarse, shape[2:], mode="bilinear").to(x.device, x.dtype)

        return [example(x) for x in tensors]

    def _check(self, graph: Between, program: "_OnnxRuntime | _OpenVino", tensors: Sequence[Tensor]) -> None:
        """Raises UserError unless a program gives the network's own result."""
        examples = self._examples(graph, tensors)
        with torch.no_grad():
            wanted = graph(*examples)
        for name, made, own in zip(OUTPUTS, self._run(program, examples), wanted, strict=True):
            error = float((made - own).abs().mean() / (1 + own.abs().mean()))
            dtype = torch.float16 if self.runtime == "openvino-npu" else self.dtype
            if not error <= TOLERANCE[dtype]:  # NaN is no agreement either
                raise UserError(
                    f"{self.title} computes another {name} than PyTorch ({error:.1e} on average): "
                    "run the network by another engine, such as pytorch"
                )


def _openvino_device(runtime: str) -> str:
    """Returns OpenVINO's name of the device of a runtime: CPU, GPU or NPU."""
    return runtime.partition("-")[2].upper() or "CPU"


def weights_digest(net: Any) -> str:
    """Returns the SHA-256 of a network's class and weights: key, shape and values of each."""
    digest = hashlib.sha256(type(net).__name__.encode() + repr(getattr(net, "config", "")).encode())
    for key, value in net.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _names(tensors: Sequence[Tensor]) -> list[str]:
    """Returns the names of the inputs of a graph: both images, the timestep, and what follows by number."""
    return ["img0", "img1", "timestep", *(f"extra{i}" for i in range(len(tensors) - 3))]
