"""Reads network weights from any published file format, as data: no code in a file runs, nothing is unpacked to disk.

Formats: .pkl, .pth and .pt of torch.save (both its zip form and the older one), .safetensors, and ncnn's .param with
its .bin. A file may lie alone, in a folder, or in a .zip or .whl as downloaded, with or without a train_log/ folder
inside. The networks HD 1.x to 3.1 are three files.
"""

import io
import lzma
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from model.errors import WeightsError
from model.files import special_kind
from model.weights import State
from model.weights.ncnn_names import read_graphs

# In order of precedence: official weights (.pkl) put into train_log/ are taken before the default ones shipped there.
WEIGHT_SUFFIXES = (".pkl", ".pth", ".pt", ".safetensors", ".param")
ARCHIVES = (".zip", ".whl")
DDP_PREFIX = "module."  # of every key of a file saved from DistributedDataParallel
INNER_FOLDER = "train_log"  # in the archives that upstream links to
# The other files of an HD network: key prefix in the combined state, and the names of the file (ncnn's differs).
COMPANIONS = {"contextnet": ("contextnet",), "unet": ("unet", "fusionnet")}
MAX_BYTES = 2**30  # of a file after unpacking, and of its tensors in float32; the largest published network is 120 MB
# Exceptions that torch, safetensors and zipfile raise on damaged files, besides OSError.
DAMAGE = (
    safetensors.SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    pickle.UnpicklingError,
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
DAMAGED_MESSAGE = "not a weight file, or cut off or damaged; download it again"


@dataclass(frozen=True)
class WeightFile:
    """Reads a file of weights on the disk, or a member of a zip archive there."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> PurePosixPath:
        """Returns the path of the file, or the path of the member inside its archive."""
        return PurePosixPath(self.member or self.path.as_posix())

    def read(self) -> bytes:
        """Returns the whole content. Raises WeightsError if the file is no regular file, too large or damaged."""
        check_regular(self.path)
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise WeightsError(f"{self}: larger than {MAX_BYTES >> 20} MB: not a RIFE network")
            if not self.member:
                return self.path.read_bytes()
            with zipfile.ZipFile(self.path) as archive:
                if archive.getinfo(self.member).file_size > MAX_BYTES:
                    raise WeightsError(f"{self}: would unpack to more than {MAX_BYTES >> 20} MB: not a RIFE network")
                return archive.read(self.member)
        except WeightsError:
            raise
        except (*DAMAGE, OSError) as e:
            raise WeightsError(f"{self}: cannot be read ({e}); download it again") from e

    def beside(self, stem: str, suffix: str) -> "WeightFile | None":
        """Returns the file of that name in the same folder or archive, or None if there is none."""
        name = self.name.with_name(stem + suffix)
        if not self.member:
            return WeightFile(Path(name)) if os.path.lexists(name) else None
        return WeightFile(self.path, str(name)) if str(name) in _member_names(self.path) else None


def check_regular(path: Path) -> None:
    """Raises WeightsError unless `path` is a regular file: reading a FIFO or a device may never end."""
    try:
        kind = special_kind(path)
    except FileNotFoundError as e:
        raise WeightsError(f"{path}: no such file or folder of weights; give the folder that holds flownet.pkl") from e
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise WeightsError(f"{path}: cannot be read ({reason}); give the file or folder of the weights") from e
    if kind:
        raise WeightsError(f"{path}: {kind}, not a file of weights; give the file or folder of the weights")


def find_weights(path: Path | str) -> WeightFile:
    """Returns the weight file at `path`, which is a file, a folder, a .zip or a .whl.

    In a folder or archive that is the flownet file at the top or in train_log/, or the only weight file. Raises
    WeightsError if there is none, or if there are several and none has an official name.
    """
    path = Path(path)
    try:
        if path.is_dir():
            inside = [p for p in (*path.iterdir(), *path.glob("*/*"), *path.glob("*/train_log/*")) if not p.is_dir()]
            return _choose([WeightFile(p) for p in inside], path, sorted(p.name for p in path.iterdir()))
    except OSError as e:
        raise WeightsError(f"{path}: cannot be read ({e.strerror}); give the file or folder of the weights") from e
    check_regular(path)
    if path.suffix.lower() in ARCHIVES:
        members = _member_names(path)
        return _choose([WeightFile(path, m) for m in members if not m.endswith("/")], path, sorted(members))
    return WeightFile(path.with_suffix(".param") if path.suffix.lower() == ".bin" else path)


def _member_names(path: Path) -> list[str]:
    """Returns the names in a zip archive. Raises WeightsError if the archive is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (*DAMAGE, OSError) as e:
        raise WeightsError(f"{path}: not a zip, or cut off; download it again") from e


def _choose(files: list[WeightFile], path: Path, names: list[str]) -> WeightFile:
    """Returns the flownet file nearest the top (train_log/ before other folders), else the only weight file there.

    Files that are being written, or were left by a run that was ended (NAME.part.pkl), do not count. `names` are the
    entries of `path`, for the error message.
    """
    whole = [f for f in files if not f.name.name.startswith(".") and not f.name.stem.endswith(".part")]
    weights = [f for f in whole if f.name.suffix in WEIGHT_SUFFIXES]
    if not weights:
        found = ", ".join(names[:8]) or "nothing"
        raise WeightsError(f"{path}: no flownet.pkl or flownet.safetensors (found: {found}); put the weights there")

    def place(file: WeightFile) -> tuple[int, bool]:
        return len(file.name.parts), file.name.parent.name != INNER_FOLDER

    best = min(place(file) for file in weights)
    nearest = [file for file in weights if place(file) == best]
    official = [file for file in nearest if file.name.name.split(".")[0] == "flownet"]
    candidates = sorted(official or nearest, key=lambda f: (WEIGHT_SUFFIXES.index(f.name.suffix), f.name))
    if len({file.name.parent for file in nearest}) > 1 or (len(candidates) > 1 and not official):
        few = ", ".join(str(file) for file in candidates[:4])
        raise WeightsError(f"{path}: more than one network, and none is the only flownet: {few}; name the file itself")
    return candidates[0]


def read_weights(file: WeightFile) -> State:
    """Returns {key: tensor} of a network on the CPU, without the DDP prefix; the three files of an HD network as one.

    Raises WeightsError as `read_state` does, and if a companion file of an HD network is missing.
    """
    if file.name.suffix == ".param":
        return _check_finite(_read_ncnn(file), file)
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
    """Returns {key: tensor} of one weight file on the CPU, without the DDP prefix.

    Raises WeightsError if the file is damaged, holds code, holds no table of tensors, or holds NaN or infinity.
    """
    file = file if isinstance(file, WeightFile) else WeightFile(Path(file))
    data = file.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of damage, which is one line below
            state = _load(file, data)
    except WeightsError:
        raise
    except DAMAGE as e:
        if isinstance(e, pickle.UnpicklingError) and any(word in str(e) for word in ("GLOBAL", "Unsupported class")):
            raise WeightsError(f"{file}: this pickle holds code, which is never run; get plain tensors instead") from e
        raise WeightsError(f"{file}: {DAMAGED_MESSAGE}") from e
    return _check_finite({str(key).removeprefix(DDP_PREFIX): value for key, value in state.items()}, file)


def _load(file: WeightFile, data: bytes) -> State:
    """Returns the state dict in the bytes of a file. Raises WeightsError, or any of DAMAGE.

    torch.load runs twice: first on the meta device, where tensors have shapes and strides but no memory. A tensor of
    stride 0 or beyond its storage would otherwise grow a small file to gigabytes.
    """
    if file.name.suffix == ".safetensors":
        return _state_dict(safetensors.torch.load(data), file)
    if zipfile.is_zipfile(io.BytesIO(data)):  # the form of torch.save since PyTorch 1.6
        _check_archive(file, data)
    plan = _state_dict(torch.load(io.BytesIO(data), map_location="meta", weights_only=True), file)
    if any(_extent(value) > value.untyped_storage().nbytes() for value in plan.values()):
        raise WeightsError(f"{file}: {DAMAGED_MESSAGE}")
    if sum(4 * value.numel() for value in plan.values()) > MAX_BYTES:
        raise WeightsError(f"{file}: tensors of more than {MAX_BYTES >> 20} MB: not a RIFE network")
    return _state_dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), file)


def _check_archive(file: WeightFile, data: bytes) -> None:
    """Raises WeightsError if a zip file of torch.save is a program, is too large, or fails a checksum of its own."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if any(info.filename.endswith("/constants.pkl") for info in members):
            raise WeightsError(f"{file}: a TorchScript program, which is never run; get its state dict instead")
        if sum(info.file_size for info in members) > MAX_BYTES:
            raise WeightsError(f"{file}: would unpack to more than {MAX_BYTES >> 20} MB: not a RIFE network")
        if any(info.CRC for info in members) and archive.testzip():  # all 0: saved without checksums
            raise WeightsError(f"{file}: {DAMAGED_MESSAGE}")


def _state_dict(loaded: Any, file: WeightFile) -> State:
    """Returns the table of dense real tensors in a loaded object, which may be wrapped as upstream's trainers do."""
    for wrapper in ("state_dict", "model", "params"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded or not all(_is_plain(value) for value in loaded.values()):
        raise WeightsError(f"{file}: holds no state dict (a table of tensors); save the network's state_dict()")
    return loaded


def _is_plain(value: object) -> bool:
    """Returns whether an object is a dense tensor of real numbers."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return value.device.type in ("cpu", "meta") and not value.is_quantized and not value.is_complex()


def _extent(tensor: Tensor) -> int:
    """Returns the bytes of storage that a tensor needs: up to its last element, and one place for each element."""
    if tensor.numel() == 0:
        return 0
    last = sum((int(size) - 1) * int(step) for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return max(int(tensor.storage_offset()) + last + 1, tensor.numel()) * tensor.element_size()


def _check_finite(state: State, file: WeightFile) -> State:
    """Returns the state unchanged. Raises WeightsError if a tensor holds NaN or infinity, which would blacken frames.

    float64 values beyond float32 count as infinity.
    """
    for key, value in state.items():
        if not bool(value.float().isfinite().all()):
            raise WeightsError(f"{file}: {key[:80]} holds NaN or infinite values; download it again")
    return state


def _read_ncnn(file: WeightFile) -> State:
    """Returns {key: tensor} of an ncnn graph with its .bin, or of the three graphs of an HD network in running order.

    Raises WeightsError if a .bin is missing or a file is damaged.
    """
    first = file.name.name.removesuffix(".param")
    graphs = [file]
    if first.split(".")[0] == "flownet":
        middle = first.removeprefix("flownet")  # ".ncnn" as pnnx names them
        for stems in COMPANIONS.values():
            others = [file.beside(stem + middle, ".param") for stem in stems]
            graphs += [other for other in others if other is not None][:1]
    pairs = []
    for graph in graphs:
        text = graph.read()
        weights = graph.beside(graph.name.name.removesuffix(".param"), ".bin")
        if weights is None:
            raise WeightsError(f"{graph}: its .bin is not beside it; ncnn weights are a pair of files")
        pairs.append((text, weights.read()))
    try:
        return read_graphs(pairs)
    except WeightsError as e:
        raise WeightsError(f"{file}: {e}; convert or download the pair again") from e
    except DAMAGE as e:
        raise WeightsError(f"{file}: not an ncnn graph, or damaged; download the pair again") from e
