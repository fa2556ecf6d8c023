"""Reading weights as data: official .pkl, .pth and .pt re-hosts, .safetensors; a file, or the folder that holds it."""

import pickle
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from model.errors import WeightsError

# In this order: official weights dropped into train_log/ come before the default ones that ship there.
WEIGHT_NAMES = ("flownet.pkl", "flownet.pth", "flownet.pt", "flownet.safetensors")
SUFFIXES = (".pkl", ".pth", ".pt", ".safetensors")
DDP_PREFIX = "module."  # of every key of a file saved from DistributedDataParallel


def find_weights(path: Path | str) -> Path:
    """The weight file that a path means: the file itself, or in a folder the first of WEIGHT_NAMES, else the only one.

    Raises WeightsError if there is none, or several and none has an official name.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise WeightsError(f"{path}: no such file or folder of weights; give --model the folder that holds flownet.pkl")
    for name in WEIGHT_NAMES:
        if (path / name).is_file():
            return path / name
    found = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    if len(found) == 1:
        return found[0]
    names = ", ".join(p.name for p in sorted(path.iterdir())[:8]) or "nothing"
    what = "more than one weight file and none is called" if found else "no"
    raise WeightsError(f"{path}: {what} flownet.pkl or flownet.safetensors (found: {names}); name the file itself")


def read_state(path: Path | str) -> dict[str, Tensor]:
    """{key: tensor} of a weight file, without the DDP prefix, on the CPU. Nothing in the file is executed."""
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        if "Unsupported" in str(e):
            raise WeightsError(f"{path}: this pickle holds code, which is never run; get plain tensors instead") from e
        raise WeightsError(f"{path}: not a weight file, or damaged; download it again") from e
    except (EOFError, RuntimeError, safetensors.SafetensorError, KeyError, UnicodeDecodeError) as e:
        raise WeightsError(f"{path}: cut off or damaged; download it again") from e
    for wrapper in ("state_dict", "model", "params"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: holds no state dict (a table of tensors); save the network's state_dict()")
    return {str(key).removeprefix(DDP_PREFIX): value for key, value in state.items()}
