"""Runs worker processes, one a device, that take segments from a plan. A worker that dies is replaced."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any

from model.errors import UserError
from model.signals import ENDING_SIGNALS
from segments.folder import WorkFolder
from video.frame import Frame

TRIES = 3  # for each segment
PAUSE = 0.2  # seconds between two messages about frames
Entry = Callable[[Any, str, "Channel"], None]  # runs in the worker: settings, device, channel


class Channel:
    """Sends messages from a worker to the process that started it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._frames = self._made = 0
        self._sent = 0.0

    def begin(self, index: int) -> None:
        """Sends the number of the segment that is begun."""
        self._connection.send(("segment", index))

    def count(self, frame: Frame) -> None:
        """Counts a frame that was written; sends the counts every PAUSE seconds."""
        self._frames += 1
        self._made += frame.made
        if monotonic() - self._sent >= PAUSE:
            self.flush()

    def flush(self) -> None:
        """Sends the counts since the last time that they were sent."""
        self._connection.send(("frames", (self._frames, self._made)))
        self._frames, self._made, self._sent = 0, 0, monotonic()

    def fail(self, message: str) -> None:
        """Sends an error that would occur again in another try."""
        self._connection.send(("error", message))


@dataclass
class Worker:
    """Holds a process on one device, and the segment that it makes."""

    device: str
    process: BaseProcess
    connection: Connection
    segment: int | None = None
    open: bool = True  # the connection


def run_workers(
    entry: Entry, settings: Any, devices: Sequence[str], folder: WorkFolder, count: Callable[[int, int], None]
) -> None:
    """Runs `entry` in a process for each device until all of them have ended; `count` gets frames and made frames.

    A worker that dies is replaced. Raises UserError if a worker reports an error, or if one segment was begun by three
    workers that died.
    """
    deaths: Counter[int | None] = Counter()
    workers: list[Worker] = []
    try:
        for device in devices:
            _start(entry, settings, device, workers)
        while workers:
            connections = [worker.connection for worker in workers if worker.open]
            ready = wait([*connections, *(worker.process.sentinel for worker in workers)])
            for worker in list(workers):
                if worker.connection in ready:
                    _receive(worker, count)
                elif worker.process.sentinel in ready and not worker.open:  # nothing is left to receive
                    workers.remove(worker)
                    if _has_died(worker, deaths, folder):
                        _start(entry, settings, worker.device, workers)
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            if worker.segment is not None:
                folder.discard_new(worker.segment)


def _start(entry: Entry, settings: Any, device: str, workers: list[Worker]) -> None:
    """Starts a worker and adds it to the list, with no signal between these two steps."""
    context = multiprocessing.get_context("spawn")
    with _signals_blocked():
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(entry, settings, device, sender), name=f"worker {device}")
        process.start()
        sender.close()
        workers.append(Worker(device, process, receiver))


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Blocks the signals that end a run for a `with` block, and for good in the processes that are started in it.

    Terminals and batch systems send signals to all processes of a run: the first process ends the workers.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(worker: Worker, count: Callable[[int, int], None]) -> None:
    try:
        kind, content = worker.connection.recv()
    except (EOFError, OSError):  # the worker has ended: its sentinel is ready
        worker.connection.close()
        worker.open = False
        return
    if kind == "segment":
        worker.segment = content
    elif kind == "frames":
        count(*content)
    else:
        raise UserError(content)


def _has_died(worker: Worker, deaths: Counter[int | None], folder: WorkFolder) -> bool:
    """Returns whether a worker that ended did so before its work was done. Raises UserError after the third time."""
    worker.process.join()
    if worker.process.exitcode == 0:
        return False
    deaths[worker.segment] += 1
    place = "before its first segment" if worker.segment is None else f"in segment {worker.segment}"
    cause = f"the worker on {worker.device} died {place} (exit status {worker.process.exitcode})"
    if deaths[worker.segment] >= TRIES:
        raise UserError(f"{folder.path}: {cause} for the {TRIES}rd time; finished segments are kept")
    print(f"{cause}; another worker replaces it", file=sys.stderr)
    return True


def _run(entry: Entry, settings: Any, device: str, connection: Connection) -> None:
    """Runs in the worker: ends with its parent, and leaves Ctrl-C to it."""
    if not hasattr(signal, "pthread_sigmask"):  # on other systems signals are blocked since the start
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    channel = Channel(connection)
    try:
        entry(settings, device, channel)
        channel.flush()
    except UserError as e:
        with suppress(OSError):
            channel.fail(str(e))


def end_with_parent() -> None:
    """Starts a thread that ends this process when the process that started it has ended, by SIGKILL too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
