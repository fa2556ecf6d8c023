"""Detects interlaced and telecined video by the combs in its first frames, and converts it by FFmpeg's filters."""

from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum
from fractions import Fraction
from itertools import chain as chained
from itertools import islice, pairwise

import av
import numpy as np
from av.error import FFmpegError

from video.frame import is_rgb
from video.pictures.picture import MediaError

SCAN_FRAMES, FEWEST_SCAN_FRAMES = 40, 8  # frames that are compared; fewer do not decide
MOST_LINES = 1152  # px; no interlaced format has more lines
COMB_RATIO = 0.2  # above: interlaced, below: progressive; see comb_ratio
REPEATED_SHARE = 0.25  # of the frames of telecined film repeat a field: 0.4, of which idet finds 0.33; of others, 0
CHANGED, COMB_LEVELS = 10, 15  # 8-bit levels
TICKS = 1000  # of a frame of the input, in the time stamps inside a filter graph
FILM = Fraction(4, 5)  # frames of film to frames of a telecined video


KEEP = "off"  # instead of a Deinterlacing: frames are taken as they are


class ScanType(Enum):
    """Names how the lines of a video's frames were taken."""

    PROGRESSIVE = "progressive"  # at one time
    INTERLACED = "interlaced"  # every second line half a frame later
    TELECINED = "telecined"  # film of 24 frames/s, in 2 frames of 5 from two of its frames


class Deinterlacing(Enum):
    """Names a conversion of interlaced or telecined video to whole frames; the value is FFmpeg's chain of filters."""

    FRAME = "bwdif=mode=send_frame:parity={parity}:deint=all"
    FIELD = "bwdif=mode=send_field:parity={parity}:deint=all"  # a frame for each field: double the rate
    FILM = "fieldmatch=order={order},bwdif=mode=send_frame:deint=interlaced,decimate"

    @property
    def rate(self) -> Fraction:
        """Returns the ratio of the result's frame rate to that of the source."""
        return {Deinterlacing.FRAME: Fraction(1), Deinterlacing.FIELD: Fraction(2), Deinterlacing.FILM: FILM}[self]


class InterlacedError(MediaError):
    """Reports an interlaced or telecined video for which no conversion was chosen."""

    def __init__(self, path: object, scan: ScanType) -> None:
        super().__init__(f"{path}: its frames are {scan.value}: motion between them would keep the combs; convert it")
        self.scan = scan


def detect_scan(pictures: Iterable[av.VideoFrame]) -> tuple[ScanType, str]:
    """Returns the kind of video and its first field, tff (top), bff (bottom) or auto, by FFmpeg's filter idet.

    The filter compares the lines of each frame with those of the frames beside it. Where nothing moves it finds
    nothing, and the flags of the pictures decide.
    """
    sample = list(islice(pictures, SCAN_FRAMES))
    sample = [p for p in sample if (p.width, p.height, p.format.name) == _kind(sample[0])]
    if len(sample) < FEWEST_SCAN_FRAMES or sample[0].height > MOST_LINES or is_rgb(sample[0].format.name):
        return ScanType.PROGRESSIVE, "auto"
    graph = FilterGraph(sample[0], "idet")
    found = [frame.metadata for frame, _ in graph.run((picture, Fraction(i)) for i, picture in enumerate(sample))]
    kinds = Counter(tags.get("lavfi.idet.multiple.current_frame") for tags in found)
    fields = kinds["tff"] + kinds["bff"]
    first = "auto" if not fields else "tff" if kinds["tff"] >= kinds["bff"] else "bff"
    flagged = all(picture.interlaced_frame for picture in sample)
    if fields <= len(sample) / 2:
        return (ScanType.INTERLACED if flagged and not kinds["progressive"] else ScanType.PROGRESSIVE), first
    repeated = sum(tags.get("lavfi.idet.repeated.current_frame") in ("top", "bottom") for tags in found)
    if repeated >= REPEATED_SHARE * len(sample):
        return ScanType.TELECINED, first
    if not flagged and comb_ratio(sample) < COMB_RATIO:
        return ScanType.PROGRESSIVE, first
    return ScanType.INTERLACED, first


def _kind(picture: av.VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name


def comb_ratio(pictures: list[av.VideoFrame]) -> float:
    """Returns how many pixels are combed, of those that are where the lines of two frames are mixed.

    Only pixels that change are counted. The combs of each field by itself are subtracted: they are those of fine
    texture, which every frame has. Progressive frames give less than 0.04 (51 clips of cameras at 96 and 240 lines,
    FFmpeg's test pattern), interlaced ones 0.3 and more unless hardly anything moves.
    """
    own, mixed = 0, np.zeros(2)
    lumas = (picture.reformat(format="gray").to_ndarray().astype(np.int16) for picture in pictures)
    for before, luma in pairwise(lumas):
        moved = np.abs(luma - before) > CHANGED
        own += _count_combs(luma, moved)
        for field in (0, 1):
            own -= _count_combs(luma[field::2], moved[field::2])
            other = luma.copy()
            other[field::2] = before[field::2]
            mixed[field] += _count_combs(other, moved)
    return own / max(float(mixed.min()), 1)


def _count_combs(luma: np.ndarray, moved: np.ndarray) -> int:
    """Returns the number of combed pixels on or beside which `moved` is true."""
    return int((_combs(luma) & (moved[:-2] | moved[1:-1] | moved[2:])).sum())


def _combs(luma: np.ndarray) -> np.ndarray:
    """Returns where a line differs from both lines beside it, which are alike: (H-2,W) of bool."""
    above, line, below = luma[:-2], luma[1:-1], luma[2:]
    out, back = line - above, line - below
    lowest = np.minimum(np.abs(out), np.abs(back))
    return np.asarray((np.sign(out) == np.sign(back)) & (lowest > COMB_LEVELS) & (np.abs(above - below) < CHANGED))


def filtered(
    pictures: Iterator[tuple[av.VideoFrame, Fraction]], chain: str | None
) -> Iterator[tuple[av.VideoFrame, Fraction]]:
    """Yields pictures with their times after a chain of filters; unchanged without one."""
    first = next(pictures, None)
    if first is not None:
        whole = chained((first,), pictures)
        yield from whole if chain is None else FilterGraph(first[0], chain).run(whole)


class FilterGraph:
    """Runs a chain of FFmpeg's filters on pictures like `first`."""

    def __init__(self, first: av.VideoFrame, chain: str) -> None:
        """Raises MediaError if the filters do not take the pixel format."""
        self._graph = av.filter.Graph()
        size = f"video_size={first.width}x{first.height}:pix_fmt={first.format.name}"
        tags = f"colorspace={first.colorspace}:range={first.color_range}"
        nodes = [self._graph.add("buffer", f"{size}:time_base=1/{TICKS}:frame_rate=1/1:pixel_aspect=1/1:{tags}")]
        for part in chain.split(","):
            name, _, settings = part.partition("=")
            nodes.append(self._graph.add(name, settings))
        nodes.append(self._graph.add("buffersink"))
        try:
            self._graph.link_nodes(*nodes).configure()
        except (FFmpegError, ValueError) as e:
            raise MediaError(f"{first.format.name}: cannot be deinterlaced ({e}); convert it to yuv420p first") from e

    def run(self, pictures: Iterable[tuple[av.VideoFrame, Fraction]]) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Yields the pictures after the filters with their times, between those of the pictures that went in."""
        times: list[Fraction] = []  # of pictures that went in and may still be in the filters
        gone = 0  # pictures before those in `times`
        for picture, time in pictures:
            picture.pts, picture.time_base = (gone + len(times)) * TICKS, Fraction(1, TICKS)
            times.append(time)
            self._graph.vpush(picture)
            for made in self._pull():
                at = Fraction(made.pts or 0) * (made.time_base or 1)
                yield made, _time_at(times, at - gone)
                while len(times) > 2 and gone + 2 < at:
                    times.pop(0)
                    gone += 1
        self._graph.vpush(None)
        for made in self._pull():
            yield made, _time_at(times, Fraction(made.pts or 0) * (made.time_base or 1) - gone)

    def _pull(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                yield self._graph.vpull()
            except (BlockingIOError, EOFError):
                return


def _time_at(times: list[Fraction], place: Fraction) -> Fraction:
    """Returns the time at a place between frames: 0 is the first of `times`, 0.5 half way to the second."""
    index = min(int(place), len(times) - 1)
    step = place - index
    if not step:
        return times[index]
    first, second = (times[index : index + 2] if index + 1 < len(times) else times[-2:] or times)[:2]
    return times[index] + step * (second - first)
