"""Compares every form of export with PyTorch, for every kind of network: differences and time, as a table.

python3 benchmark/exports.py                                         random weights, and the default ones
python3 benchmark/exports.py --model 4.26=DIR --model "HD 3.x=DIR2"  weights of your own for a network
python3 benchmark/exports.py --networks 4.25 ours --forms onnx torch

A network without a file has the published widths and random weights with flows of a few pixels. Each program runs the
same pairs of images, moved noise, at three sizes, one of them no multiple of the padding where the form pads itself.
The table has the largest and the mean difference over all of them to PyTorch's own forward in float32, in 0..1, and the
processor time of a frame of the first size, by one thread, against PyTorch's. pkl, comfy and "ncnn read back" are read
by our own reader. A form whose package is not installed is refused. The last line is JSON.
"""

import argparse
import io
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

# run as a script, this folder is on the path, not the repository's root where `model` lies
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark import ncnn_run
from benchmark.compare import pair
from benchmark.device import interleaved
from commands.arguments import argument_type
from commands.errors import run_command
from model import UserError
from model.export.forms import Files, Settings, export
from model.export.metadata import LoadedNetwork, read_source, without_sharp
from model.IFNet import IFNet
from model.IFNet_HD import IFNet_HDv3
from model.IFNet_v4 import IFNet_v4
from model.image import pad_multiple
from model.loading import TRAIN_LOG, AnyNetwork, load_network
from model.RIFE import RIFE
from model.weights.checkpoint import WeightFile
from model.weights.published import PUBLISHED

TIMESTEP = 0.3
TIMED_RUNS = 2
MEAN_MOTION, ROUNDS = 3.0, 6  # mean flow of random weights, px; how often it is measured
LAST_LAYERS = re.compile(r"\.(lastconv|conv1\.2)\b")  # the last layers of the blocks
RunPair = Callable[[Tensor, Tensor], Tensor]


def _published(number: str) -> Callable[[], AnyNetwork]:
    names = [name for name in PUBLISHED if number in name.replace("4.13-4.15", "4.13, 4.14, 4.15").split(", ")]
    return lambda: IFNet_v4(PUBLISHED[names[0]])


NETWORKS: dict[str, Callable[[], AnyNetwork]] = {
    "paper": IFNet,
    "RIFE_m": lambda: IFNet(timed=True),
    "HD 3.x": IFNet_HDv3,
    **{number: _published(number) for number in ("4.0", "4.6", "4.15", "4.22.lite", "4.25", "4.26")},
}


def source_of(name: str, files: Mapping[str, Path]) -> LoadedNetwork:
    """Returns a network with the weights of its file, or with random ones, the same every time."""
    if name in files or name == "ours":
        return read_source(files.get(name, TRAIN_LOG))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = with_motion(NETWORKS[name]().eval().requires_grad_(False))
    return LoadedNetwork(net, name, name, WeightFile(Path(f"{name}.pkl")), "random")


@torch.no_grad()
def with_motion(net: AnyNetwork) -> AnyNetwork:
    """Returns the network, its random weights scaled so that the mean flow of a pair of images is MEAN_MOTION px."""
    model = RIFE(net, name="random", engine=net)
    side = pad_multiple(net)
    heads = [value for key, value in net.named_parameters() if LAST_LAYERS.search(key)]
    for _ in range(ROUNDS):
        estimated = model.flow(*pair((2 * side, 2 * side), "cpu"))
        factor = MEAN_MOTION / max(estimated.abs().mean().item(), 1e-6)
        for value in heads:
            value.mul_(min(max(factor, 0.1), 10))
    return net


def planes(height: int, width: int) -> Tensor:
    """Returns the last four channels (1,4,H,W) of layout v1: coordinates in -1..1, and the size of a pixel in them."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, width), torch.linspace(-1, 1, height), indexing="xy")
    return torch.stack((x, y, torch.full_like(x, 2 / (width - 1)), torch.full_like(x, 2 / (height - 1))))[None]


def by_onnxruntime(files: Files, layout: str) -> RunPair:
    """Returns a function from two images to the image between them, by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(files[".onnx"], options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}

    def run(img0: Tensor, img1: Tensor) -> Tensor:
        size = img0.shape[2:]
        if layout == "plain":
            named = {"img0": img0, "img1": img1, "timestep": torch.full((1, 1, 1, 1), TIMESTEP)}
        else:
            more = [planes(*size)] if layout == "v1" else []
            named = {"input": torch.cat((img0, img1, torch.full((1, 1, *size), TIMESTEP), *more), 1)}
        (made,) = session.run(None, {key: x.numpy() for key, x in named.items() if key in wanted})
        return torch.from_numpy(made)

    return run


def by_openvino(files: Files) -> RunPair:
    """Returns a function from two images to the image between them, by OpenVINO."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        for suffix, content in files.items():
            (Path(folder) / f"a{suffix}").write_bytes(content)
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        compiled: Any = openvino.Core().compile_model(Path(folder) / "a.xml", "CPU", options)
    wanted = [value.get_any_name() for value in compiled.inputs]

    def run(img0: Tensor, img1: Tensor) -> Tensor:
        named = {"img0": img0, "img1": img1, "timestep": torch.full((1, 1, 1, 1), TIMESTEP)}
        (made,) = compiled({name: named[name].numpy() for name in wanted}).values()
        return torch.from_numpy(np.array(made))

    return run


def by_torch(files: Files) -> RunPair:
    """Returns a function from two images to the image between them, by a loaded program of torch.export."""
    program = torch.export.load(io.BytesIO(files[".pt2"])).module()
    return lambda img0, img1: program(img0, img1, torch.full((1, 1, 1, 1), TIMESTEP))


def by_reader(files: Files) -> RunPair:
    """Returns a function from two images to the image between them, by the network that `read_weights` finds."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix, content in files.items():
            (Path(folder) / (suffix if suffix.startswith("flownet") else f"flownet{suffix}")).write_bytes(content)
        net = load_network(folder)[0].eval()
    return plain(net)


def by_ncnn(files: Files) -> RunPair:
    """Returns a function from two images to the image between them, by the package `ncnn`."""
    with tempfile.TemporaryDirectory() as folder:
        return ncnn_run.runner(files["flownet.param"].decode(), files["flownet.bin"], folder, TIMESTEP)


def plain(net: Any) -> RunPair:
    """Returns a function from two images to the image between them, by the network's own forward."""
    model = RIFE(net, name="own", engine=net)
    return lambda img0, img1: model.inference(img0, img1, timestep=TIMESTEP if net.arbitrary_time else 0.5).clamp(0, 1)


class Kind(NamedTuple):
    """Describes a column of the table: a form with its settings, and how its files are run."""

    form: str
    settings: Settings
    run: Callable[[Files], RunPair]
    timed: bool = True
    sharp: bool = True  # whether the form has the sharp blend of this project's weights
    pads: bool = True


EXPORT_KINDS = {
    "pkl": Kind("pkl", Settings(), by_reader, timed=False, sharp=False),
    "comfy": Kind("comfy", Settings(), by_reader, timed=False, sharp=False),
    "onnx": Kind("onnx", Settings(), partial(by_onnxruntime, layout="plain")),
    "onnx v2": Kind("onnx", Settings(layout="v2"), partial(by_onnxruntime, layout="v2")),
    "onnx v1": Kind("onnx", Settings(layout="v1"), partial(by_onnxruntime, layout="v1"), pads=False),
    "onnx fp16": Kind("onnx", Settings(half=True), partial(by_onnxruntime, layout="plain")),
    "onnx v2 fp16": Kind("onnx", Settings(layout="v2", half=True), partial(by_onnxruntime, layout="v2")),
    "onnx v1 fp16": Kind("onnx", Settings(layout="v1", half=True), partial(by_onnxruntime, layout="v1"), pads=False),
    "openvino": Kind("openvino", Settings(), by_openvino),
    "ncnn": Kind("ncnn", Settings(), by_ncnn, sharp=False, pads=False),
    "ncnn read back": Kind("ncnn", Settings(), by_reader, timed=False, sharp=False),
    "torch": Kind("torch", Settings(), by_torch, pads=False),
}


def compare(source: LoadedNetwork, kind: Kind) -> dict[str, Any]:
    """Returns the differences and times of one form, or why the network cannot take it."""
    try:
        files = export(source, kind.form, kind.settings)
    except UserError as e:
        return {"refused": str(e).split(": ", 1)[-1]}
    run = kind.run(files)
    own = plain(source.net if kind.sharp else without_sharp(source).net)
    side = pad_multiple(source.net)
    sizes = [
        (3 * side, 2 * side),
        (2 * side, 3 * side),
        (2 * side - 14, side + 5) if kind.pads else (2 * side, 2 * side),  # torch programs: twice the padding or more
    ]
    images = [pair(size, "cpu") for size in sizes]
    with torch.no_grad():
        errors = [(run(*two) - own(*two)).abs() for two in images]
        record = {"largest": max(e.max().item() for e in errors), "mean": max(e.mean().item() for e in errors)}
        if kind.timed:
            calls = {"it": partial(run, *images[0]), "own": partial(own, *images[0])}
            times = interleaved(calls, torch.device("cpu"), TIMED_RUNS, time.process_time)
            record |= {"ms": min(times["it"]), "own_ms": min(times["own"])}
    return record


def rows(name: str, records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the rows of a network in Markdown, from a record for each form; forms with equal results share a row."""
    forms: dict[str, list[str]] = {}
    for form, record in records.items():
        forms.setdefault(_results(record), []).append(form)
    return [f"| {name} | {', '.join(equal)} | {results} |" for results, equal in forms.items()]


def _results(record: Mapping[str, Any]) -> str:
    """Returns the last three cells of a row."""
    if "refused" in record:
        return f"refused: {record['refused']} | |"
    times = ""
    if "ms" in record:
        times = f"{record['ms']:.0f} / {record['own_ms']:.0f} ms, {record['own_ms'] / record['ms']:.2f}x"
    return f"{record['largest']:.1e} | {record['mean']:.1e} | {times}"


def parse_file(text: str) -> tuple[str, Path]:
    """Reads the network and the path of "NETWORK=PATH". Raises ValueError for another text."""
    name, _, path = text.partition("=")
    if name not in NETWORKS or not path:
        raise ValueError(f"{text!r} names no known network")
    return name, Path(path)


network_file = argument_type(parse_file, f"NETWORK=PATH with one of {', '.join(NETWORKS)}")


def run(args: argparse.Namespace) -> None:
    """Prints the rows of each network, then the JSON."""
    print("| network | form | largest difference | mean | time / PyTorch's |\n|---|---|---|---|---|")
    results = []
    for name in args.networks:
        source = source_of(name, dict(args.model))
        records = {form: compare(source, EXPORT_KINDS[form]) for form in args.forms}
        print(*rows(name, records), sep="\n", flush=True)
        results += [{"network": name, "form": form, **record} for form, record in records.items()]
    print(json.dumps({"results": results}))


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*NETWORKS, "ours"]
    p.add_argument("--networks", nargs="+", choices=names, default=names, metavar="NAME",
                   help=f"{', '.join(names)} (default: all)")  # fmt: skip
    p.add_argument(
        "--forms",
        nargs="+",
        choices=EXPORT_KINDS,
        default=list(EXPORT_KINDS),
        metavar="FORM",
        help=f"{', '.join(EXPORT_KINDS)} (default: all)",
    )
    p.add_argument("--model", type=network_file, action="append", default=[], metavar="NETWORK=PATH",
                   help="weights of a network (default: random ones)")  # fmt: skip
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    return run_command("exports.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
