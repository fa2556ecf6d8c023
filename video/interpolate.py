"""The loop: frames in, frames out, on one device or several; and `prefetch`, a stage on a thread of its own."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from model.image import send_layers, to_layers
from model.metrics import Surroundings, surroundings
from model.wrapper import RIFE, PreparedFrame
from video.frame import Colour, Frame, Picture
from video.scene import CUT_SSIM, REPEAT_SSIM, Change, compare, thumbnail
from video.timing import Timing

T = TypeVar("T")
Settings = dict[str, Any]  # keywords of RIFE.between
Sending = Callable[[], Picture]  # waits for a picture that a device may still be making, and gives it
HALF = Fraction(1, 2)
AHEAD = 2  # frames that are decoded and converted before the network asks for them
HELD_BACK = 4  # frames at most that are held back behind one in flight
SEGMENT = 4  # pairs in a row on one device: only the frame where two segments meet is prepared twice


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
    """A frame with what the networks need of it, computed once for both pairs it belongs to."""

    frame: Frame
    rgb: np.ndarray
    thumbnail: Surroundings  # a frame is compared with the one before and the one after
    change: Change = Change.MOTION  # from the frame before it
    prepared: dict[RIFE, PreparedFrame] = field(default_factory=dict)

    def prepare(self, model: RIFE, scale: float) -> PreparedFrame:
        """On the device of a model, with its features."""
        if model not in self.prepared:
            with torch.no_grad():  # grad mode is per thread, and this may be any thread
                self.prepared[model] = model.prepare(to_layers(self.rgb, model.device), scale=scale)
        return self.prepared[model]


class _Pair(NamedTuple):
    """Two frames in a row, and what to show between them."""

    first: _Seen
    second: _Seen
    steps: list[tuple[Fraction, Fraction]]  # output time, timestep

    @property
    def timesteps(self) -> list[Fraction]:
        return [step for _, step in self.steps if step]


class _Sent(NamedTuple):
    """A frame whose picture may still be on its way from a device."""

    picture: Sending
    time: Fraction
    colour: Colour | None
    made: bool = False  # by a network

    def arrived(self) -> Frame:
        return Frame(self.picture(), self.time, self.colour)


def interpolate(
    frames: Iterable[Frame],
    model: RIFE,
    timing: Timing,
    *,
    others: Sequence[RIFE] = (),
    scale: float = 1.0,
    options: Mapping[str, bool] | None = None,
    thresholds: Thresholds | None = None,
    report: Report | None = None,
) -> Iterator[Frame]:
    """The frames of `timing` between each two frames, then the last frame; times rise, memory holds a few frames.

    Frames are taken, and their colours converted, a few ahead on a thread of their own. A timestep of 0 gives the
    source frame itself. Over a cut the earlier frame is held. `options` are those of RIFE.between: tta, ensemble,
    refine. `others` are the same network on other devices, which take turns of SEGMENT pairs; what comes out and its
    order stay the same.
    """
    settings = {"scale": scale, **(options or {})}
    models = [model, *others]
    most = _in_flight(models)
    sent: deque[_Sent] = deque()
    with closing(_send(frames, models, timing, settings, thresholds or Thresholds(), report or Report())) as sending:
        for frame in sending:
            sent.append(frame)
            while sent and (not sent[0].made or sum(f.made for f in sent) > most or len(sent) > HELD_BACK):
                yield sent.popleft().arrived()
        for frame in sent:
            yield frame.arrived()


def _in_flight(models: Sequence[RIFE]) -> int:
    """How many frames are made and not waited for: with one a GPU has its next work before it is done with the last."""
    return 0 if all(model.device.type == "cpu" for model in models) else 1


def _send(
    frames: Iterable[Frame],
    models: Sequence[RIFE],
    timing: Timing,
    settings: Settings,
    thresholds: Thresholds,
    report: Report,
) -> Generator[_Sent, None, None]:
    """What `interpolate` yields, as soon as the devices have been told to make it."""
    model = models[0]
    last = None
    with closing(prefetch(((frame, frame.rgb()) for frame in frames), AHEAD)) as ready:
        seen = (_look(frame, rgb, model, settings["scale"]) for frame, rgb in _waiting(ready, report))
        mended = pairwise(_mend_repeats(seen, model, settings, thresholds, report))
        pairs = (_Pair(a, b, timing(a.frame.time, b.frame.time)) for a, b in mended)
        with closing(_spread(pairs, models, settings)) as spread:
            for pair, pictures in spread:
                cut = bool(pair.timesteps) and pair.second.change is Change.CUT
                report.cuts += cut
                source = pair.first.frame
                for time, step in pair.steps:
                    made = bool(step) and not cut
                    picture = next(pictures) if step else partial(_keep, source.picture)
                    yield _Sent(picture, time, source.colour, made)
                    report.made += made
                last = pair.second.frame
    if last is not None:
        just_after = last.time + Fraction(1, 10**9)
        for time, step in timing(last.time, just_after):
            if not step:
                yield _Sent(partial(_keep, last.picture), time, last.colour)


def _keep(picture: Picture) -> Picture:
    return picture


def _spread(
    pairs: Iterable[_Pair], models: Sequence[RIFE], settings: Settings
) -> Generator[tuple[_Pair, Iterator[Sending]], None, None]:
    """Each pair with the pictures between it, in order: of one model as they are asked for, of several ahead."""
    if len(models) == 1:
        for pair in pairs:
            yield pair, _between(models[0], pair, settings)
        return
    workers = [ThreadPoolExecutor(1) for _ in models]  # a thread a device, which keeps its pairs in order
    pending: deque[tuple[_Pair, Future[list[Sending]]]] = deque()
    try:
        for i, pair in enumerate(pairs):
            turn = i // SEGMENT % len(models)
            pending.append((pair, workers[turn].submit(_all_between, models[turn], pair, settings)))
            if len(pending) == SEGMENT * len(models):
                pair, pictures = pending.popleft()
                yield pair, iter(pictures.result())
        while pending:
            pair, pictures = pending.popleft()
            yield pair, iter(pictures.result())
    finally:
        for worker in workers:
            worker.shutdown(cancel_futures=True)


def _between(model: RIFE, pair: _Pair, settings: Settings) -> Iterator[Sending]:
    """The earlier frame again over a cut, else what the network makes."""
    if pair.second.change is Change.CUT:
        return (partial(_keep, pair.first.frame.picture) for _ in pair.timesteps)
    return _make(model, pair.first, pair.second, pair.timesteps, settings)


def _all_between(model: RIFE, pair: _Pair, settings: Settings) -> list[Sending]:
    return list(_between(model, pair, settings))


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


def _look(frame: Frame, rgb: np.ndarray, model: RIFE, scale: float) -> _Seen:
    multiple = model.multiple(scale)
    padded = (-(-rgb.shape[0] // multiple) * multiple, -(-rgb.shape[1] // multiple) * multiple)
    return _Seen(frame, rgb, surroundings(thumbnail(rgb, padded)))


def _make(
    model: RIFE, first: _Seen, second: _Seen, timesteps: Sequence[Fraction], settings: Settings
) -> Iterator[Sending]:
    if timesteps:
        frame0, frame1 = (seen.prepare(model, settings["scale"]) for seen in (first, second))
        for image in model.between(frame0, frame1, timesteps, **settings):
            yield send_layers(image, first.rgb.shape[2], first.rgb.dtype.type)


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
            (made,) = _make(model, first, third, [HALF], settings)
            report.repeats += 1
            mended = Frame(made(), second.frame.time, first.frame.colour)
            second = _look(mended, mended.rgb(), model, settings["scale"])
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
