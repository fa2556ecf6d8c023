"""The loop: frames in, frames out; and `prefetch`, the only threading."""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from model.image import from_layers, to_layers
from model.wrapper import RIFE, PreparedFrame
from video.frame import Frame, Picture
from video.scene import CUT_SSIM, REPEAT_SSIM, Change, compare, thumbnail
from video.timing import Timing

T = TypeVar("T")
Settings = dict[str, Any]  # keywords of RIFE.between
HALF = Fraction(1, 2)
AHEAD = 2  # frames that are decoded and converted before the network asks for them


@dataclass
class Report:
    """What an interpolation has done so far."""

    made: int = 0  # frames from the network
    cuts: int = 0  # held over
    repeats: int = 0  # replaced by the midpoint of their neighbours
    waited: float = 0.0  # seconds for frames to be decoded


@dataclass(frozen=True)
class Thresholds:
    """Similarities (32x32 SSIM) below which two frames are a cut and above which the second repeats the first."""

    scene: float = CUT_SSIM
    static: float = REPEAT_SSIM

    def compare(self, first: "_Seen", second: "_Seen") -> Change:
        """What happens between two frames."""
        return compare(first.thumbnail, second.thumbnail, self.scene, self.static)


@dataclass
class _Seen:
    """A frame with what the network needs of it, computed once for both pairs it belongs to."""

    frame: Frame
    prepared: PreparedFrame
    thumbnail: Tensor
    channels: int
    depth: type[np.generic]
    change: Change = Change.MOTION  # from the frame before it


def interpolate(
    frames: Iterable[Frame],
    model: RIFE,
    timing: Timing,
    *,
    scale: float = 1.0,
    options: Mapping[str, bool] | None = None,
    thresholds: Thresholds | None = None,
    report: Report | None = None,
) -> Iterator[Frame]:
    """The frames of `timing` between each two frames, then the last frame; times rise, memory holds three frames.

    Frames are taken, and their colours converted, a few ahead on a thread of their own. A timestep of 0 gives the
    source frame itself. Over a cut the earlier frame is held. `options` are those of RIFE.between: tta, ensemble,
    refine.
    """
    thresholds, report = thresholds or Thresholds(), report or Report()
    settings = {"scale": scale, **(options or {})}
    last = None
    with closing(prefetch(((frame, frame.rgb()) for frame in frames), AHEAD)) as ready:
        seen = (_look(frame, rgb, model, scale) for frame, rgb in _waiting(ready, report))
        for first, second in pairwise(_mend_repeats(seen, model, settings, thresholds, report)):
            steps = timing(first.frame.time, second.frame.time)
            between = [(time, step) for time, step in steps if step]
            if between and second.change is Change.CUT:
                report.cuts += 1
                pictures: Iterator[Picture] = (first.frame.picture for _ in between)
            else:
                pictures = _make(model, first, second, [step for _, step in between], settings, report)
            for time, step in steps:
                yield Frame(next(pictures) if step else first.frame.picture, time, first.frame.colour)
            last = second
    if last is not None:
        yield from _closing(last.frame, timing)


def _waiting(items: Iterator[T], report: Report) -> Iterator[T]:
    """The items; the report hears how long each was waited for."""
    end = object()
    while True:
        start = perf_counter()
        item: Any = next(items, end)
        report.waited += perf_counter() - start
        if item is end:
            return
        yield item


def _closing(last: Frame, timing: Timing) -> Iterator[Frame]:
    """The last frame, if an output time falls on it."""
    just_after = last.time + Fraction(1, 10**9)
    for time, step in timing(last.time, just_after):
        if not step:
            yield Frame(last.picture, time, last.colour)


def _look(frame: Frame, rgb: np.ndarray, model: RIFE, scale: float) -> _Seen:
    with torch.no_grad():  # grad mode is per thread, and this may be any thread
        prepared = model.prepare(to_layers(rgb, model.device), scale=scale)
        return _Seen(frame, prepared, thumbnail(prepared.image), rgb.shape[2], rgb.dtype.type)


def _make(
    model: RIFE, first: _Seen, second: _Seen, timesteps: list[Fraction], settings: Settings, report: Report
) -> Iterator[np.ndarray]:
    for image in model.between(first.prepared, second.prepared, timesteps, **settings):
        report.made += 1
        yield from_layers(image, first.channels, first.depth)


def _mend_repeats(
    frames: Iterable[_Seen], model: RIFE, settings: Settings, thresholds: Thresholds, report: Report
) -> Iterator[_Seen]:
    """Replaces a frame that repeats the one before by the midpoint of its neighbours, so that motion does not stutter.

    upstream: also does so when the frame after the repeat is beyond a cut, and then interpolates over that cut; here a
    repeat before a cut stays as it is, because a midpoint across a cut is a ghost.
    """
    source = iter(frames)
    first, second = next(source, None), next(source, None)
    if first is not None:
        yield first
    while first is not None and second is not None:
        third = next(source, None)
        second.change = thresholds.compare(first, second)
        if third is not None and second.change is Change.REPEAT and thresholds.compare(first, third) is not Change.CUT:
            (picture,) = _make(model, first, third, [HALF], settings, report)
            report.made -= 1
            report.repeats += 1
            mended = Frame(picture, second.frame.time, first.frame.colour)
            second = _look(mended, picture, model, settings["scale"])
            second.change = thresholds.compare(first, second)
        yield second
        first, second = second, third


def prefetch(items: Iterable[T], depth: int = 4) -> Generator[T, None, None]:
    """The same items, produced up to `depth` ahead on a thread of their own.

    An error in the stage is raised here; closing this generator stops the thread and closes the stage.
    """
    ready: queue.Queue[tuple[bool, object]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[bool, object]) -> None:
        while not stop.is_set():
            try:
                return ready.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                put((True, item))
                if stop.is_set():
                    break
            put((False, None))
        except BaseException as e:  # noqa: BLE001 - whatever it is, the reader must hear of it
            put((False, e))
        finally:
            close = getattr(iterator, "close", None)
            if close:
                close()

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
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
