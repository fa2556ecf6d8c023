"""Reads and writes the files of a training run: weights, and the state from which an interrupted run continues."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from model.errors import UserError
from model.weights.checkpoint import DAMAGE
from video.safe_file import MAX_NAME, SafeFile, nearest_existing

WEIGHTS = "flownet.pkl"  # the latest weights, under upstream's name
BEST = Path("best") / WEIGHTS  # the weights with the best validation
STATE = "state.pt"
FIELDS = {"net", "average", "optimizer", "scaler", "progress"}
PROGRESS = {"stages", "stage", "step", "before", "seconds", "best", "optimizer"}
LOCK = ".lock"  # locked by the process that writes the run

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def check_run_folder(folder: Path) -> None:
    """Raises UserError if the folder of a run cannot be made or written to; call it before any work is done."""
    if len(os.fsencode(folder.name)) > MAX_NAME:
        raise UserError(f"{folder}: its name is longer than {MAX_NAME} bytes; choose a shorter one for the run")
    existing = nearest_existing(folder)
    if not existing.is_dir():
        raise UserError(f"{folder}: {existing} is not a folder; choose another name for the run")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: {existing} cannot be written to; choose another folder for the run")


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Makes the folder of a run, and locks it while the context lasts. UserError if another process has locked it.

    The system ends the lock with the process, however the process ends. Without locks, as on Windows and on some
    network folders, nothing is checked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab")
    except OSError as e:
        raise UserError(f"{folder}: cannot be written to ({e.strerror}); choose another folder for the run") from e
    with file:
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by the processes that load data
        except (BlockingIOError, PermissionError) as e:
            raise UserError(f"{folder}: another process is training there now; choose another folder, or wait") from e
        except OSError:  # a network folder without locks
            pass
        yield


def check_no_run(folder: Path) -> None:
    """Raises UserError if the folder holds a run already: no run is replaced."""
    found = [name for name in (STATE, WEIGHTS, str(BEST)) if os.path.lexists(folder / name)]
    if found:
        raise UserError(f"{folder}: holds a run already ({', '.join(found)}); resume it, or choose another folder")


def write_tensors(path: Path, content: Any, *, overwrite: bool = True) -> None:
    """Writes tensors so that a stop at any moment leaves either the old file, if any, or the new one.

    Raises UserError if they cannot be written; the old file is then unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with SafeFile(path, overwrite=overwrite) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as e:  # torch wraps errors of the disk
        raise UserError(f"{path}: cannot be written ({_cause(e)}); make room on the disk, then resume the run") from e


def write_run(folder: Path, files: Mapping[Path, Any]) -> None:
    """Writes the files of a checkpoint in their order, the state last.

    UserError where the disk does not take them. If the run has no state until then, its other files are removed, so
    that it can be started again.
    """
    first = not os.path.lexists(folder / STATE)
    try:
        for name, content in files.items():
            write_tensors(folder / name, content)
    except UserError as e:
        if first:
            for name in files:
                (folder / name).unlink(missing_ok=True)
            raise UserError(f"{str(e).partition(';')[0]}; make room on the disk, then start the run again") from e
        raise


def _cause(error: BaseException) -> str:
    """Returns the system's message for an error of the disk, without the long text of torch."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, OSError):
        inner = inner.__cause__ or inner.__context__
    return (isinstance(inner, OSError) and inner.strerror) or str(error).partition("\n")[0]


def read_run_state(path: Path) -> dict[str, Any]:
    """Reads the state of a run, written by `write_tensors`; UserError if the file is missing, damaged or another."""
    if not path.is_file():
        raise UserError(f"{path}: no such file, so there is no run to resume")
    remedy = f"start a new run from the weights in {path.with_name(WEIGHTS)}"
    try:
        if zipfile.is_zipfile(path):
            _check_sums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles that it did not write
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGE, OSError, pickle.UnpicklingError, zipfile.BadZipFile) as e:
        raise UserError(f"{path}: damaged or cut off, or not the state of a run; {remedy}") from e
    known = isinstance(state, dict) and set(state) >= FIELDS and isinstance(state["progress"], dict)
    if not known or not set(state["progress"]) >= PROGRESS:
        raise UserError(f"{path}: not the state of a run of this version; {remedy}")
    return state


def _check_sums(path: Path) -> None:
    """Raises BadZipFile where a part of a file of torch.save fails its checksum: torch itself does not compare them."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(damaged)
