"""Writes files so that no crash, full disk, second run or wrong name destroys a file.

A file is written as NAME.part.SUFFIX, which must not exist before, and is renamed when it is complete and on the disk:
the final name never belongs to half a file. An input is never replaced, by whatever name or link it is reached.
"""

import io
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from model.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed or renamed anyway
    fcntl = None  # type: ignore[assignment]

# Files with these suffixes are the pictures of a folder that is read.
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".exr", ".bmp")
MAX_NAME = 255  # bytes of one name on the usual file systems
SYNC_SECONDS = 5.0  # a power cut costs at most this much of a file that is written slowly


def part_path(path: Path) -> Path:
    """Returns the name under which `path` is written until it is complete; long names are shortened to fit."""
    stem, ending = path.stem, f".part{path.suffix}"
    while len(os.fsencode(stem + ending)) > MAX_NAME:
        stem = stem[:-1]
    return path.with_name(stem + ending)


def same_file(first: Path, second: Path) -> bool:
    """Returns whether two names lead to one file or folder, through links and hard links too."""
    try:
        return os.path.samefile(first, second)
    except OSError:  # one of them does not exist
        return os.path.realpath(first) == os.path.realpath(second)


def is_picture_in(path: Path, folder: Path) -> bool:
    """Returns whether `path` names a picture in a folder: one of the folder's, or one that would be taken for one."""
    return path.suffix.lower() in PICTURE_SUFFIXES and folder.is_dir() and same_file(path.parent, folder)


def check_not_input(path: Path, inputs: Iterable[Path]) -> None:
    """Raises UserError if `path` is one of the files or folders that are read, or a picture in one of these folders."""
    for source in inputs:
        if same_file(path, source):
            raise UserError(f"{path}: is the input {source} itself; choose another name for the output")
        if is_picture_in(path, source):
            raise UserError(f"{path}: would be one of the pictures of {source}, which are read; choose another folder")


def check_output(path: Path, inputs: Iterable[Path] = (), *, overwrite: bool = False) -> None:
    """Raises UserError if a file cannot be written as `path`: call it before any work is done.

    Refused: an input by any name, also as the part file; an existing file unless `overwrite`; a folder, a device or a
    pipe; a folder above it that does not exist or cannot be written to; a name that is too long.
    """
    inputs, part = list(inputs), part_path(path)
    for name in (path, part):
        check_not_input(name, inputs)
    if len(os.fsencode(path.name)) > MAX_NAME:
        raise UserError(f"{path}: its name is longer than {MAX_NAME} bytes; choose a shorter name for the output")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file as the output, in that folder or another")
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is not a plain file; choose another name for the output")
    if os.path.lexists(path) and not overwrite:
        raise UserError(f"{path}: exists already; choose another name for the output, or overwrite it")
    _check_part(part, overwrite)
    if not path.parent.is_dir():
        raise UserError(f"{path}: its folder does not exist; make it or choose another output")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: its folder cannot be written to; choose another output")


def nearest_existing(path: Path) -> Path:
    """Returns the path, or the nearest folder above it that exists: what a new folder is made in."""
    return next(above for above in (path, *path.absolute().parents) if os.path.lexists(above))


def check_folder(folder: Path) -> None:
    """Raises UserError if files cannot be written into a folder, or if it does not exist and cannot be made."""
    above = nearest_existing(folder)
    if not above.is_dir():
        raise UserError(f"{folder}: {above} is not a folder; choose another output folder")
    if not os.access(above, os.W_OK):
        raise UserError(f"{folder}: {above} cannot be written to; choose another output folder")


def lock_folder(folder: Path) -> int | None:
    """Locks a folder for the files of one run; returns a file descriptor: closing it, or the end of the run, unlocks.

    Returns None where the system has no locks. Raises UserError if another run has locked the folder.
    """
    if fcntl is None:
        return None
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        os.close(file)
        raise UserError(
            f"{folder}: another run writes pictures there now; let that run end, or choose another folder"
        ) from e
    except OSError:  # a network folder without locks
        pass
    return file


def _check_part(part: Path, overwrite: bool) -> None:
    """Raises UserError if the part exists: always if another run writes it, else unless `overwrite`."""
    if not os.path.lexists(part):
        return
    if part.is_dir() and not part.is_symlink():
        raise UserError(f"{part}: is a folder; remove it or choose another name for the output")
    if _is_locked(part):
        raise UserError(f"{part}: another run writes it now; let that run end, or choose another name for the output")
    if not overwrite:
        raise UserError(
            f"{part}: exists already, left by an interrupted run or in use by one that still runs; move it away, "
            "overwrite it, or choose another name for the output"
        )


def _is_locked(part: Path) -> bool:
    """Returns whether another SafeFile is writing the part; False where the system has no locks."""
    if fcntl is None or not stat.S_ISREG(os.lstat(part).st_mode):
        return False
    try:
        file = os.open(part, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a network folder without locks
        return False
    finally:
        os.close(file)
    return False


class SafeFile(io.FileIO):
    """Writes a new binary file that gets its final name when it is complete: `commit`, or the end of a `with` block.

    Raises UserError where `check_output` does. Errors of the disk are OSError; the first one of `write` stays in
    `error`. `keep` leaves what was written under the name of the part, `discard` removes it; so does an error in the
    `with` block. FFmpeg and torch.save write to it as to any file.
    """

    def __init__(self, path: Path, inputs: Iterable[Path] = (), *, overwrite: bool = False) -> None:
        self.path, self.part, self.inputs, self.overwrite = path, part_path(path), list(inputs), overwrite
        self.error: OSError | None = None
        check_output(path, self.inputs, overwrite=overwrite)
        try:
            if overwrite:
                self.part.unlink(missing_ok=True)
            super().__init__(self.part, "x+")  # fails if the name exists, be it a link
        except FileExistsError as e:
            raise UserError(f"{self.part}: another run has just begun to write it; choose another output") from e
        except OSError as e:
            raise UserError(f"{path}: cannot be written ({e.strerror}); choose another output") from e
        if fcntl is not None:
            with suppress(OSError):  # a network folder without locks
                fcntl.flock(self, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._synced = time.monotonic()

    def write(self, data: Any) -> int:
        """Writes all of `data`, which is bytes or a buffer, at the current position; returns its length.

        Bytes that were written before the disk was full are removed: half a box of MP4 spoils the whole file.
        """
        rest = memoryview(data).cast("B")
        total, size = rest.nbytes, os.fstat(self.fileno()).st_size
        try:
            while rest.nbytes:
                rest = rest[super().write(rest) :]
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self)
                self._synced = time.monotonic()
        except OSError as e:
            self.error = self.error or e
            with suppress(OSError):
                self.truncate(size)
            raise
        return total

    def commit(self) -> None:
        """Flushes the file to the disk and renames it to its final name. Raises the error that `write` met, if any.

        Raises UserError, and leaves the part, if the final name has been taken meanwhile or the part is no longer the
        file that was written.
        """
        if self.error is not None:  # which a library may have passed over
            raise self.error
        os.fsync(self)
        written = os.fstat(self.fileno())
        self.close()
        if not (os.path.lexists(self.part) and os.path.samestat(written, os.lstat(self.part))):
            raise UserError(f"{self.part}: was removed or replaced while it was written; nothing was finished")
        check_not_input(self.path, self.inputs)
        if self.overwrite:
            os.replace(self.part, self.path)
        else:
            self._rename_to_new_name()
        sync_folder(self.path.parent)

    def _rename_to_new_name(self) -> None:
        try:
            os.link(self.part, self.path)  # fails if the name exists, in one step; a rename would replace it
            self.part.unlink()
        except FileExistsError as e:
            raise self._taken() from e
        except OSError as e:  # a file system without hard links
            if os.path.lexists(self.path):
                raise self._taken() from e
            self.part.rename(self.path)

    def _taken(self) -> UserError:
        return UserError(f"{self.path}: was made by another program meanwhile; the whole result is in {self.part}")

    def keep(self) -> None:
        """Closes the file and leaves what was written under the name of the part."""
        with suppress(OSError, ValueError):  # the disk is full or gone; or the file is closed already
            os.fsync(self)
        self.close()

    def discard(self) -> None:
        """Closes the file and removes the part."""
        self.close()
        with suppress(OSError):
            self.part.unlink(missing_ok=True)

    def __enter__(self) -> "SafeFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.closed:
            return
        if kind is not None:
            return self.discard()
        try:
            self.commit()
        except OSError:  # the disk is full or gone
            self.discard()
            raise


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk, so that a rename survives a power cut; where the system can do it."""
    with suppress(OSError):
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def write_file(path: Path, data: bytes, inputs: Iterable[Path] = (), *, overwrite: bool = True) -> None:
    """Writes a small file whole; an older file stays until the new one is complete. Raises UserError."""
    try:
        with SafeFile(path, inputs, overwrite=overwrite) as file:
            file.write(data)
    except OSError as e:
        raise UserError(f"{path}: cannot be written ({e.strerror}); choose another folder or make room") from e
