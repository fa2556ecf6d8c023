"""Writes programs of OpenVINO and of torch.export."""

import io
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from model.errors import UserError
from model.image import pad_multiple

LARGEST = 16384  # px of height and width of a program of torch.export


def openvino_program(content: bytes, texts: Mapping[str, str]) -> dict[str, bytes]:
    """Returns the pair .xml and .bin of an ONNX graph; weights keep their dtype. UserError without OpenVINO."""
    try:
        import openvino  # an optional dependency
    except ImportError as e:
        raise UserError("an OpenVINO graph needs OpenVINO: python3 -m pip install openvino") from e
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "graph.onnx"
        source.write_bytes(content)
        model = openvino.convert_model(source)
        for key, value in texts.items():
            model.set_rt_info(value, ["rife", key])
        openvino.save_model(model, Path(folder) / "graph.xml", compress_to_fp16=False)
        return {suffix: (Path(folder) / f"graph{suffix}").read_bytes() for suffix in (".xml", ".bin")}


def torch_program(graph: nn.Module, examples: Sequence[Tensor], texts: Mapping[str, str]) -> bytes:
    """Returns the .pt2 file of a plain graph, for images whose sizes are multiples of the padding from twice up.

    The metadata is the extra file metadata.json. Needs torch 2.6 or later. Making it takes 7 to 20 s: torch.export
    proves every size of a step for all sizes of the images.
    """
    multiple = pad_multiple(graph.net, graph.scale)  # type: ignore[arg-type]
    names = ("height", "width")
    sides = {i + 2: multiple * torch.export.Dim(name, min=2, max=LARGEST // multiple) for i, name in enumerate(names)}
    content = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(graph, tuple(examples), dynamic_shapes=(sides, sides, {}), strict=False)
        torch.export.save(program, content, extra_files={"metadata.json": json.dumps(dict(texts))})
    return content.getvalue()
