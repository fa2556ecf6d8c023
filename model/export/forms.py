"""Lists the forms of export, and returns why a network cannot take one of them."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.errors import UserError
from model.export import ncnn, onnx_graph, programs
from model.export.graph import V1_CHANNELS, V2_CHANNELS, Graph, LayoutV1, LayoutV2, Padded, Plain
from model.export.metadata import LoadedNetwork, as_json, without_sharp
from model.image import pad_multiple
from model.weights.checkpoint import DDP_PREFIX

LAYOUTS = ("plain", "v2", "v1")


@dataclass(frozen=True)
class Settings:
    """Holds the settings of an export."""

    layout: str = "plain"
    half: bool = False  # convolutions in float16
    scale: float = 1.0
    ensemble: bool = False


Files = dict[str, bytes]  # content by the end of the file's name, ".onnx"


def refusal(source: LoadedNetwork, form: str, settings: Settings) -> str | None:
    """Returns why a network cannot take a form, or None."""
    net = source.net
    if form in ("pkl", "comfy"):
        return None
    if not net.fixed_scales:
        return "4.0 and 4.1 choose their scales by the flow they find, but a graph has fixed steps; use 4.2 or later"
    if settings.ensemble and "ensemble" not in net.options:
        return "this network has no ensemble: only 3.9-4.20 and 4.24 do"
    if net.arbitrary_time:
        return None
    if form == "ncnn":
        return (
            "the ncnn programs take one graph that estimates any timestep, but this network estimates the middle alone"
        )
    if form == "onnx" and settings.layout != "plain":
        return (
            f"layout {settings.layout} is for any timestep, but this network estimates the middle alone; "
            "use the layout plain"
        )
    return None


def weights_pkl(source: LoadedNetwork, settings: Settings) -> Files:
    """Returns upstream's flownet.pkl: keys with `module.`, and only those of the published network."""
    return {".pkl": _saved({DDP_PREFIX + key: value for key, value in published_state(source).items()})}


def weights_comfy(source: LoadedNetwork, settings: Settings) -> Files:
    """Returns a file that is loaded strictly: the keys of the published network, without prefix."""
    return {".pth": _saved(published_state(source))}


def published_state(source: LoadedNetwork) -> dict[str, Tensor]:
    """Returns the tensors of the published network alone: without the mark of the sharp blend and the teacher."""
    state = without_sharp(source).net.state_dict()
    return {key: value.contiguous().clone() for key, value in state.items() if not key.startswith("block_tea.")}


def _saved(state: dict[str, Tensor]) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def graph_of(
    source: LoadedNetwork, settings: Settings, kind: type[Graph] | None = None
) -> tuple[Graph, tuple[Tensor, ...]]:
    """Returns the graph of a layout, or of a class with the inputs of `Plain`, and small example inputs for it."""
    net: nn.Module = source.net
    if settings.half:  # images, coordinates, flows and the blend stay in float32
        net = copy.deepcopy(net).half()
    options = {"ensemble": True} if settings.ensemble else {}
    kind = kind or {"plain": Plain, "v2": LayoutV2, "v1": LayoutV1}[settings.layout]
    graph = kind(net, scale=settings.scale, **options)
    side = pad_multiple(net, settings.scale)
    height, width = 2 * side, 3 * side
    if settings.layout == "plain":
        images = (torch.rand(1, 3, height, width), torch.rand(1, 3, height, width))
        return graph, (*images, torch.full((1, 1, 1, 1), 0.5))
    return graph, (torch.rand(1, V1_CHANNELS if settings.layout == "v1" else V2_CHANNELS, height, width),)


def onnx_file(source: LoadedNetwork, settings: Settings) -> Files:
    """Returns an ONNX graph; inputs by layout: see the classes of graph.py."""
    graph, examples = graph_of(source, settings)
    plain = settings.layout == "plain"
    inputs, output = ["img0", "img1", "timestep"] if plain else ["input"], "image" if plain else "output"
    sized = {0: onnx_graph.BATCH} if plain else {}
    sized |= {2: onnx_graph.HEIGHT, 3: onnx_graph.WIDTH}
    axes = {name: sized for name in (*inputs, output) if name != "timestep"}
    content = onnx_graph.trace(graph, examples, inputs, [output], axes)
    texts = source.texts(layout=settings.layout, dtype=dtype_name(settings), scale=f"{settings.scale:g}")
    return {".onnx": onnx_graph.finish(content, texts, size_like=(output, inputs[0]))}


def dtype_name(settings: Settings) -> str:
    """Returns the dtype of the convolutions, for metadata."""
    return "float16" if settings.half else "float32"


def ncnn_files(source: LoadedNetwork, settings: Settings) -> Files:
    """Returns the pair flownet.param and flownet.bin of a folder, and the metadata as JSON."""
    plain = without_sharp(source)  # the layer rife.Warp samples bilinearly
    options = {"ensemble": True} if settings.ensemble else {}
    param, weights = ncnn.convert(plain.net, half=settings.half, scale=settings.scale, **options)
    texts = plain.texts(dtype=dtype_name(settings), scale=f"{settings.scale:g}")
    return dict(zip(ncnn.FILES, (param, weights, as_json(texts)), strict=True))


def openvino_files(source: LoadedNetwork, settings: Settings) -> Files:
    """Returns OpenVINO's pair .xml and .bin, made from the plain ONNX graph."""
    (content,) = onnx_file(source, settings).values()
    return programs.openvino_program(content, source.texts(dtype=dtype_name(settings), scale=f"{settings.scale:g}"))


def torch_file(source: LoadedNetwork, settings: Settings) -> Files:
    """Returns a program of torch.export, .pt2, for any size; making it takes 7 to 20 s of processor time."""
    graph, examples = graph_of(source, settings, Padded)
    return {".pt2": programs.torch_program(graph, examples, source.texts(dtype=dtype_name(settings)))}


@dataclass(frozen=True)
class Form:
    """Describes a file format: the function that makes it, and the settings that it has."""

    make: Callable[[LoadedNetwork, Settings], Files]
    title: str
    files: tuple[str, ...]  # the names, or their ends, that `make` returns
    settings: tuple[str, ...] = ("half", "scale", "ensemble")
    folder: bool = False  # several files of fixed names, in a folder


FORMS = {
    "pkl": Form(weights_pkl, "weights as upstream publishes them, for vs-rife", (".pkl",), ()),
    "comfy": Form(weights_comfy, "weights for the nodes of ComfyUI", (".pth",), ()),
    "onnx": Form(
        onnx_file,
        "a graph for ONNX Runtime, TensorRT, DirectML, vs-mlrt",
        (".onnx",),
        ("half", "scale", "ensemble", "layout"),
    ),
    "ncnn": Form(ncnn_files, "a folder for rife-ncnn-vulkan and its plugins", ncnn.FILES, folder=True),
    "openvino": Form(openvino_files, "a graph for OpenVINO", (".xml", ".bin")),
    "torch": Form(torch_file, "a program of torch.export", (".pt2",), ("half",)),
}


def export(source: LoadedNetwork, form: str, settings: Settings) -> Files:
    """Returns the files of a network in a form. Raises UserError where the network, or a package, does not allow it."""
    reason = refusal(source, form, settings)
    if reason:
        raise UserError(f"{source.name} cannot be exported to {form}: {reason}")
    return FORMS[form].make(source, settings)
