"""Runs a stage of the pipeline on a thread of its own, a few items ahead of its consumer."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
RETRY = 0.1  # seconds between two checks whether the consumer has closed the generator


def prefetch(items: Iterable[T], depth: int = 4) -> Generator[T, None, None]:
    """Yields the same items in the same order, produced up to `depth` ahead by a thread.

    An error of the producer is raised in the consumer. Closing this generator stops the thread and closes `items`.
    """
    ready: queue.Queue[tuple[bool, object]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[bool, object]) -> None:
        while not stop.is_set():
            try:
                return ready.put(entry, timeout=RETRY)
            except queue.Full:
                continue

    def produce() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                put((True, item))
                if stop.is_set():
                    break
            put((False, None))
        except BaseException as e:  # noqa: BLE001 - every error of the producer is raised in the consumer
            put((False, e))
        finally:
            close = getattr(iterator, "close", None)
            if close:
                close()

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, item = ready.get()
            if more:
                yield item  # type: ignore[misc]
            elif isinstance(item, BaseException):
                raise item
            else:
                return
    finally:
        stop.set()
        thread.join()
