"""The files of a training run: weights to interpolate with, and the state from which an interrupted run goes on."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from model.errors import UserError
from model.weights.checkpoint import DAMAGE
from video.safe_file import SafeFile

WEIGHTS = "flownet.pkl"  # the latest weights, under upstream's name
BEST = Path("best") / WEIGHTS  # the weights with the best validation
STATE = "state.pt"
FIELDS = {"net", "average", "optimizer", "scaler", "progress"}


def refuse_old_run(folder: Path) -> None:
    """Raises UserError if the folder holds a run already: no run is replaced."""
    found = [name for name in (STATE, WEIGHTS, str(BEST)) if (folder / name).exists()]
    if found:
        raise UserError(f"{folder}: holds a run already ({', '.join(found)}); resume it, or choose another folder")


def write_tensors(path: Path, content: Any) -> None:
    """Writes tensors so that a stop at any moment leaves either the old file or the new one.

    UserError where the disk does not take them; the old file is whole then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with SafeFile(path, overwrite=True) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as e:  # torch wraps errors of the disk
        raise UserError(f"{path}: cannot be written ({_cause(e)}); make room on the disk, then resume the run") from e


def _cause(error: BaseException) -> str:
    """Returns the words of the system for an error of the disk, without torch's long ones."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, OSError):
        inner = inner.__cause__ or inner.__context__
    return (isinstance(inner, OSError) and inner.strerror) or str(error).partition("\n")[0]


def read_state(path: Path) -> dict[str, Any]:
    """Returns what `write_tensors` wrote of a run; UserError if the file is missing, damaged or of another kind."""
    if not path.is_file():
        raise UserError(f"{path}: no such file, so there is no run to resume")
    remedy = f"start a new run from the weights in {path.with_name(WEIGHTS)}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles that it did not write
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGE, OSError, pickle.UnpicklingError, zipfile.BadZipFile) as e:
        raise UserError(f"{path}: damaged or cut off, or not the state of a run; {remedy}") from e
    if not isinstance(state, dict) or not set(state) >= FIELDS:
        raise UserError(f"{path}: not the state of a run of this version; {remedy}")
    return state
