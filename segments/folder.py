"""Manages the working folder of a long work: its plan, one file and one record for each finished segment."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from shutil import rmtree
from time import monotonic

from model.errors import UserError
from model.files import read_text
from segments.inspect import file_size
from segments.locks import PLAN, PREVIEW, WORK, Locks
from segments.plan import Plan
from video.safe_file import sync_folder, write_file

PLAN_FILE, LOCK, JOINED = "plan.json", "lock", "joined"
TIMEOUT, PAUSE = 3.0, 0.05  # seconds that a share waits for others that begin anew, and for a lock at a time
DONE_PLAN = "done.json"  # name of the plan from the time on when the output is complete
SEGMENT_NAME = re.compile(r"\d{5}(\.new)?(\.part)?(\.\w+)?")  # of segments and their records
OWN_NAME = re.compile(r"(plan|done|joined|trial-\d+)(\.part)?(\.\w+)?|lock")


@dataclass(frozen=True)
class Record:
    """Holds the properties of a finished segment, and what was counted and found while it was made."""

    frames: int
    size: int  # bytes of the file; 0 for a folder of pictures
    first: str  # time in seconds, as a fraction
    last: str
    duration: str | None  # of the last frame in seconds, if it is known
    delay: int  # frames that the order of decoding is behind the order of display, at most
    header: str  # hash of the encoder's header
    counts: dict[str, int]  # of the interpolation: frames made, cuts, ...
    boundaries: list[int | None]  # checksums of the source's first frame and of the frame after the last one
    transitions: list[tuple[str, str, float | None]]  # time, kind, score
    used: list[int]  # places of the given transitions that a frame has taken
    measures: list[tuple[float, float, bool]]  # of made frames: time, disagreement, whether it was replaced
    errors: list[str]  # damage of the source
    notes: list[str]


class WorkFolder:
    """Manages the folder `path` with the segments of an output; their files end in `suffix`, "" for pictures."""

    def __init__(self, path: Path, suffix: str) -> None:
        self.path, self.suffix = path, suffix
        self._locks: Locks | None = None

    @property
    def plan_file(self) -> Path:
        """Returns the path of the plan."""
        return self.path / PLAN_FILE

    @property
    def joined(self) -> Path:
        """Returns the path of the whole result until it is moved to its final name."""
        return self.path / f"{JOINED}{self.suffix}"

    @property
    def trial(self) -> Path:
        """Returns the path for a trial of the output; each process has its own."""
        return self.path / f"trial-{os.getpid()}{self.suffix}"

    def file(self, index: int) -> Path:
        """Returns the path of the finished file of a segment."""
        return self.path / f"{index:05d}{self.suffix}"

    def new_file(self, index: int) -> Path:
        """Returns the path of the file of a segment until it is verified."""
        return self.path / f"{index:05d}.new{self.suffix}"

    def open(self, plan: Plan, cut: Callable[[], Plan], *, shared: bool, overwrite: bool = False) -> Plan:
        """Makes the folder, or finds it; returns the plan that is there, with its parts.

        `plan` has no parts yet: the one that `cut` returns is written if the folder has none. `shared` lets several
        processes open the folder at once. Raises UserError if another run works in the folder, if its plan is not the
        same and `overwrite` is False, or if the folder holds files of others.
        """
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as e:
            raise UserError(f"{self.path}: cannot be made ({e.strerror}); choose another output") from e
        self._check_folder()
        self._lock_work(shared)
        if self.plan_file.exists():
            try:
                return self._read_same(plan)
            except UserError:
                if not overwrite:
                    raise
                self._begin_anew(plan, shared)
        try:
            self._opened_locks().take(PLAN, timeout=inf)  # one of several shares makes the plan, the others wait
            if not self.plan_file.exists():
                self._empty()  # segments without their plan are of unknown settings
                write_file(self.plan_file, cut().to_json())
            self._opened_locks().release(PLAN)
        except BaseException:
            if not shared:
                self.remove()
            raise
        return self._read_same(plan)

    def find_plan(self, plan: Plan, *, overwrite: bool = False) -> Plan | None:
        """Returns the plan that `open` would continue, or None; writes nothing. Raises UserError as `open` does."""
        if not self.path.exists():
            return None
        if not self.path.is_dir():
            raise UserError(f"{self.path}: is a file, and has to be a folder; choose another output")
        self._check_folder()
        try:
            return self._read_same(plan) if self.plan_file.exists() else None
        except UserError:
            if not overwrite:
                raise
            return None

    def _check_folder(self) -> None:
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise UserError(f"{self.path}: cannot be written to; choose another output")
        if other := next((path.name for path in self.path.iterdir() if not _is_own(path)), None):
            raise UserError(f"{self.path}: holds other files, as {other}; move them, or choose another output")

    def _read_same(self, plan: Plan) -> Plan:
        found = Plan.read(self.plan_file)
        plan.check_same(found, self.path)
        return found

    def _lock_work(self, shared: bool) -> None:
        if not self._opened_locks().take(WORK, shared=shared, timeout=TIMEOUT if shared else 0):
            raise UserError(f"{self.path}: another run works on it now; let that run end")

    def _begin_anew(self, plan: Plan, shared: bool) -> None:
        """Empties the folder while no other process works in it; one of the shares that begin anew at once does so."""
        locks = self._opened_locks()
        until = monotonic() + TIMEOUT
        while not self._is_anew(plan):
            if shared:
                locks.release(WORK)  # of two that hold it, neither would get it alone
            if locks.take(WORK, timeout=PAUSE):
                if not self._is_anew(plan):
                    self._empty()
            elif monotonic() >= until:
                raise UserError(f"{self.path}: another run works on it now; let that run end")
        self._lock_work(shared)

    def _is_anew(self, plan: Plan) -> bool:
        try:
            return not self.plan_file.exists() or bool(self._read_same(plan))
        except UserError:
            return False

    def is_finished(self, index: int) -> bool:
        """Returns whether a segment is complete."""
        return self.file(index).exists()

    def discard_damaged(self, plan: Plan) -> list[int]:
        """Removes the segments that are not as they were when they were finished; returns their numbers.

        They have no record, or another size: they were copied in part, or a disk lost their end.
        """
        damaged = [i for i in range(len(plan.parts)) if self.is_finished(i) and not self._is_whole(i)]
        for index in damaged:
            _remove(self.file(index))
        return damaged

    def _is_whole(self, index: int) -> bool:
        try:
            return self.record(index).size == file_size(self.file(index))
        except UserError:
            return False

    def missing(self, plan: Plan) -> list[int]:
        """Returns the segments that are not complete."""
        return [i for i in range(len(plan.parts)) if not self.is_finished(i)]

    def unequal(self, plan: Plan) -> list[int]:
        """Returns the segments that begin with another picture than the one before them has decoded there.

        That happens where decoding from a key frame does not give the frames of the whole source.
        """
        records = list(self.records(plan))
        return [i for i in range(1, len(records)) if records[i].boundaries[0] != records[i - 1].boundaries[1]]

    def renew(self, plan: Plan, indices: Sequence[int]) -> Plan:
        """Removes some segments; returns the plan, changed so that they are decoded from the start of the source."""
        parts = tuple(
            replace(part, key=None, anchor=None) if i in indices else part for i, part in enumerate(plan.parts)
        )
        plan = replace(plan, parts=parts)
        for index in indices:  # before the plan: a file that is there is of the present plan
            _remove(self.file(index))
        write_file(self.plan_file, plan.to_json())
        return plan

    def take(self, index: int) -> bool:
        """Takes the lock of a segment; returns False if another process makes it now."""
        return self._opened_locks().take(index + 1)

    def take_preview(self) -> bool:
        """Takes the lock of the preview; returns False if another process writes it."""
        return self._opened_locks().take(PREVIEW)

    def _opened_locks(self) -> Locks:
        if self._locks is None:
            self._locks = Locks(self.path / LOCK)
        return self._locks

    def release(self, index: int) -> None:
        """Releases the lock of a segment."""
        if self._locks is not None:
            self._locks.release(index + 1)

    def complete(self, index: int, record: Record) -> None:
        """Gives the verified new file of a segment its final name, after its record is on the disk."""
        write_file(self._record_file(index), json.dumps(asdict(record)).encode())
        os.replace(self.new_file(index), self.file(index))
        sync_folder(self.path)

    def files_of(self, index: int) -> dict[str, bytes]:
        """Returns the file and the record of a finished segment, by name."""
        return {path.name: path.read_bytes() for path in (self._record_file(index), self.file(index))}

    def adopt(self, index: int, files: dict[str, bytes]) -> None:
        """Takes over the files of a segment that was finished in another folder; does nothing without files."""
        if files:
            write_file(self._record_file(index), files[self._record_file(index).name])
            write_file(self.file(index), files[self.file(index).name])

    def record(self, index: int) -> Record:
        """Returns the record of a finished segment. Raises UserError if it is gone."""
        path = self._record_file(index)
        try:
            return Record(**json.loads(read_text(path)))
        except (OSError, ValueError, TypeError) as e:
            raise UserError(f"{path}: is missing or damaged; the same command makes its segment again") from e

    def records(self, plan: Plan) -> Iterator[Record]:
        """Yields the records of all segments."""
        return (self.record(i) for i in range(len(plan.parts)))

    def _record_file(self, index: int) -> Path:
        return self.path / f"{index:05d}.json"

    def discard_new(self, index: int) -> None:
        """Removes what is left of a segment that was not completed."""
        new = self.new_file(index)
        for path in (new, new.with_name(f"{new.stem}.part{new.suffix}")):
            _remove(path)

    def _empty(self) -> None:
        for path in self.path.iterdir():
            if path.name != LOCK:
                _remove(path)

    def close(self) -> None:
        """Releases the locks."""
        if self._locks is not None:
            self._locks.close()
            self._locks = None

    def done_plan(self) -> Plan | None:
        """Returns the plan if the output is complete and a run was ended while it removed the folder, or None."""
        return Plan.read(self.path / DONE_PLAN) if (self.path / DONE_PLAN).exists() else None

    def remove(self) -> None:
        """Removes the folder with all its segments; the plan last, under another name. Files of others are kept.

        With that name a folder of which some segments are gone is never taken for work that can be continued.
        """
        if self.plan_file.exists():
            os.replace(self.plan_file, self.path / DONE_PLAN)
            sync_folder(self.path)
        for path in sorted(self.path.iterdir(), key=lambda path: (path.name == DONE_PLAN, path.name == LOCK)):
            if _is_own(path):
                _remove(path)
        self.close()
        with suppress(OSError):
            self.path.rmdir()


def _is_own(path: Path) -> bool:
    """Returns whether a file of the folder has a name that this module gives."""
    return bool(SEGMENT_NAME.fullmatch(path.name) or OWN_NAME.fullmatch(path.name))


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            rmtree(path)
        else:
            path.unlink(missing_ok=True)
