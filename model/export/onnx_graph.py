"""Writes ONNX files: a traced graph with variable sizes, in opset 16, which every runtime of these networks has."""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import UserError

OPSET = 16  # the first with GridSample; that of the files of vs-mlrt
HEIGHT, WIDTH, BATCH = "height", "width", "batch"
COLOURS = 3  # channels of an image


def trace(
    graph: nn.Module,
    examples: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
) -> bytes:
    """Returns the ONNX file of a graph, run on example tensors; `axes` names the variable axes of inputs and outputs.

    Raises UserError where the package onnx is missing.
    """
    try:
        import onnx  # noqa: F401  # torch writes no file without it
    except ImportError as e:
        raise UserError("an ONNX graph needs the package onnx: python3 -m pip install onnx") from e
    content: Any = io.BytesIO()  # its type is missing among those that torch names
    with warnings.catch_warnings(), torch.no_grad():
        # sizes that were compared while tracing are the same for every size, as the tests at three sizes show
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            tuple(examples),
            content,
            dynamo=False,  # the newer exporter takes minutes where sizes are variable
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(named) for name, named in axes.items()},
        )
    return content.getvalue()


def finish(content: bytes, texts: Mapping[str, str], *, size_like: tuple[str, str] | None = None) -> bytes:
    """Returns an ONNX file with metadata, checked; `size_like` (output, input): an image with the input's H and W.

    Shape inference then gives the output's size from the input's.
    """
    import onnx

    model: Any = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(model, dict(texts))
    model.producer_name = "RIFE"
    if size_like:
        output, source = (
            next(value for value in values if value.name == name)
            for name, values in zip(size_like, (model.graph.output, model.graph.input), strict=True)
        )
        sizes = output.type.tensor_type.shape.dim
        for axis in (0, 2, 3):
            sizes[axis].CopyFrom(source.type.tensor_type.shape.dim[axis])
        sizes[1].dim_value = COLOURS
    onnx.checker.check_model(model)
    finished: bytes = model.SerializeToString()
    return finished
