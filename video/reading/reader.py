"""Reads the frames of a video or of a folder of pictures, in order, each with its exact time."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from zlib import crc32

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from video.alpha import ANIMATIONS, source_format
from video.frame import Colour, Frame, PictureFormat, clip_samples, fit_picture
from video.hdr import CAPTION_DATA, Hdr, display_matrix, side_data, view_marks
from video.pictures.picture import MediaError
from video.pictures.picture_folder import PictureFolder
from video.reading.clock import Clock, out_of_order
from video.reading.container import (
    URL_MARK,
    Location,
    check_not_encrypted,
    check_regular_file,
    finds_key_frame,
    location_path,
    main_video,
    open_container,
    seek_to,
    start_time,
)
from video.reading.decoder import Decoder
from video.reading.interlace import KEEP, Deinterlacing, InterlacedError, ScanType, detect_scan, filtered
from video.reading.joined import JoinedDecoder
from video.reading.matroska import picture_end, shown_until
from video.reading.pipe import InputPipe
from video.reading.rate import count_frames, exact_time_base, find_rate, find_rounded_rate
from video.reading.source_part import SourcePart
from video.timing.speed import SpeedMap

ORDER_SAMPLE = 8  # frames that are decoded at the start to find out whether their pts rise


@dataclass
class Source:
    """Holds the properties of the input, known before its first frame is read; and what was found while reading it."""

    path: Path
    size: tuple[int, int]  # width, height as stored, before any rotation
    rate: Fraction  # frames/s, the average if it varies
    count: int | None  # frames, if the container has that number
    time_base: Fraction  # every frame's time is a multiple of it
    is_video: bool
    colour: Colour | None = None  # of a video
    hdr: Hdr = field(default_factory=Hdr)
    has_captions: bool = False  # closed captions in the side data of the first frames
    view_marks: tuple[str, ...] = ()  # names of the marks for players: stereo layout, spherical projection
    pix_fmt: str = "rgb24"
    rotation: int = 0  # degrees counter-clockwise that a player turns it by: a multiple of 90
    display_matrix: tuple[int, ...] | None = None
    aspect: Fraction | None = None  # of a pixel
    start: Fraction = Fraction(0)  # seconds on the container's clock where its first stream starts
    first: Fraction = Fraction(0)  # time of the file's first frame
    end: Fraction | None = None  # seconds on the container's clock where the picture ends by its headers, if known
    tick: Fraction | None = None  # seconds that the time stamps of a constant rate are rounded to, if they are
    location: Location = ""  # what FFmpeg opens: the path, a network address, or a pipe
    pictures: PictureFolder | None = None  # if it is no video
    stream: int | None = None  # number of the picture among the streams
    filters: str | None = None  # FFmpeg's, that make whole frames of interlaced ones
    rate_factor: Fraction = Fraction(1)  # of `rate` to that of the file, by these filters
    is_trimmed: bool = False  # `start` is later than the file's own
    length: Fraction | None = None  # seconds from `start` that are used, if not all
    speed: SpeedMap | None = None  # of playback: maps times of the source to those of the output
    decode_order: bool = False  # times follow the order of decoding: the file's display times do not rise
    part: SourcePart | None = None  # of the frames, if not all are to be read
    checksums: dict[Fraction | None, int] = field(default_factory=dict)  # of the pictures at the ends of `part`
    errors: list[str] = field(default_factory=list)  # damage found while reading: something is lost
    notes: list[str] = field(default_factory=list)  # what was changed while reading, without loss
    shifts: list[Fraction] = field(default_factory=list)  # seconds that the clock moves by after each restart
    formats: list[tuple[Fraction, PictureFormat]] = field(default_factory=list)  # and the time from which each holds

    def output_time(self, time: Fraction) -> Fraction:
        """Returns a time in seconds from `start` on the clock of the output; what a trim cut off is at its ends.

        Sound that is played at another speed begins at 0 at the earliest.
        """
        if self.is_trimmed or self.speed is not None:
            time = max(time, Fraction(0))
        if self.length is not None:
            time = min(time, self.length)
        return time if self.speed is None else self.speed.output_time(time)

    def holds(self, time: Fraction) -> bool:
        """Returns whether a time in seconds from `start` is within the part of the file that is used."""
        return (time >= 0 or not self.is_trimmed) and (self.length is None or time < self.length)

    def __iter__(self) -> Generator[Frame, None, None]:
        if not self.is_video:
            return _read_folder(self)
        if self.end is None or (self.part is not None and self.part.end is not None):
            return _read_video(self)
        return shown_until(_read_video(self), self.end - self.start, self.tick or Fraction(0))


def open_frames(
    path: Location,
    rate: Fraction = Fraction(24),
    *,
    number: int | None = None,
    deinterlacing: Deinterlacing | str | None = None,
) -> Source:
    """Opens a video file, a network address (a string), a pipe, or a folder of pictures that play at `rate`.

    `number` is that of the video stream, if it is not the one that is the picture. Interlaced video is refused unless
    `deinterlacing` converts it, or is KEEP. Raises MediaError with file, cause and remedy.
    """
    if not isinstance(path, InputPipe) and URL_MARK not in str(path):
        path = Path(path)
        if path.is_dir():
            return _open_folder(path, rate)
        check_regular_file(path)
    with open_container(path) as container:
        source = _open_video(path, container, number)
    return _scanned(source, deinterlacing)


def _scanned(source: Source, deinterlacing: Deinterlacing | str | None) -> Source:
    """Returns the source with the rate after deinterlacing. Raises InterlacedError if it has to be chosen."""
    if deinterlacing == KEEP:
        return source
    with open_container(source.location) as container:
        stream = main_video(container, source.stream)
        assert stream is not None
        pictures = (stamped.picture for stamped in Decoder(container, stream).pictures())
        scan, first = detect_scan(pictures)
    if not isinstance(deinterlacing, Deinterlacing):
        if scan is not ScanType.PROGRESSIVE:
            raise InterlacedError(source.path, scan)
        return source
    factor = deinterlacing.rate
    source.filters = deinterlacing.value.format(parity=first, order=first)
    source.rate, source.rate_factor = source.rate * factor, factor
    source.count = None if source.count is None else round(source.count * factor)
    source.time_base /= 4  # of a field: 2, of film: 4
    return source


def _open_video(location: Location, container: InputContainer, number: int | None) -> Source:
    stream = main_video(container, number)
    if stream is None and number is not None:
        videos = ", ".join(str(s.index) for s in container.streams.video) or "none"
        raise MediaError(f"{location}: stream {number} is no video that can be decoded; those of video: {videos}")
    if stream is None:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise MediaError(f"{location}: no video stream that can be decoded (it holds: {kinds}); give another file")
    check_not_encrypted(location, stream.index)
    decoder = Decoder(container, stream)
    first = list(islice(decoder.pictures(), ORDER_SAMPLE))
    if len(first) < 2:
        if not first and stream.codec_context.name == "webp":
            raise MediaError(f"{location}: FFmpeg decodes no animated WebP; convert it to APNG or to pictures")
        found = "only one frame" if first else "not one frame could be decoded"
        raise MediaError(f"{location}: {found}; interpolation needs two or more")
    picture = first[0].picture
    start = start_time(container, first[0].pts)
    decode_order = out_of_order([stamped.pts for stamped in first]) > 1 and not out_of_order(
        [stamped.dts for stamped in first]
    )
    base = stream.time_base or Fraction(1, 90000)
    shown = Fraction(stream.start_time or 0) * base if decode_order else first[0].pts
    rate = find_rate(location, stream)
    exact, tick = (None if decode_order else find_rounded_rate(location, stream, rate)) or (rate, None)
    return Source(
        path=location_path(location),
        size=(picture.width, picture.height),
        rate=exact,
        count=count_frames(container, stream, rate),
        time_base=base if tick is None else exact_time_base(exact),
        is_video=True,
        colour=Colour.of(picture),
        hdr=Hdr.of(picture),
        has_captions=any(side_data(stamped.picture, CAPTION_DATA) for stamped in first),
        view_marks=view_marks(picture),
        pix_fmt=_pix_fmt(location, stream, picture),
        rotation=picture.rotation % 360,
        display_matrix=display_matrix(picture),
        aspect=stream.sample_aspect_ratio or None,
        start=start,
        end=picture_end(location, container, stream),
        first=Fraction(0) if shown is None else shown - start,
        tick=tick,
        location=location,
        stream=stream.index,
        decode_order=decode_order,
    )


def _pix_fmt(location: Location, stream: VideoStream, first: av.VideoFrame) -> str:
    """Returns the pixel format of the source's frames: without alpha if every picture of an animation is opaque."""
    if stream.codec_context.name not in ANIMATIONS:
        return source_format(stream.codec_context.name, first, [first])
    with open_container(location) as again:
        animation = again.streams.video[stream.index]
        pictures = (stamped.picture for stamped in Decoder(again, animation).pictures())
        return source_format(stream.codec_context.name, first, pictures)


def _read_video(source: Source) -> Generator[Frame, None, None]:
    """Yields the frames with rising times. Damage is counted in source.errors, never fatal after two frames."""
    for found in (source.errors, source.notes, source.shifts, source.formats):
        found.clear()
    part = source.part
    key = None if part is None or part.key is None else part.key + source.start  # on the clock of the file
    if key is not None and not finds_key_frame(source.location, source.stream, key):
        key = None
    with open_container(source.location, is_last=True) as container:
        stream = main_video(container, source.stream)
        if stream is None:
            raise MediaError(f"{source.path}: its video stream is gone; was the file replaced?")
        if key is not None:
            seek_to(container, stream, key)
        decoder = Decoder(container, stream)
        joined = JoinedDecoder(source.location, container, decoder)
        first, end = source.first, decoder.file_end(source.start)
        anchor = None if part is None or key is None else part.anchor
        rate = source.rate / source.rate_factor
        clock = Clock(rate, decode_order=source.decode_order, first=first, tick=source.tick, anchor=anchor, end=end)
        clock.shifts = source.shifts
        resized, is_read = 0, False

        def fitted() -> Iterator[tuple[av.VideoFrame, Fraction]]:
            nonlocal resized
            for picture, time in clock.times(joined.pictures(source.start)):
                if not source.formats or (picture.width, picture.height) != source.formats[-1][1].size:
                    source.formats.append((time, PictureFormat.of(picture, joined.current.aspect or source.aspect)))
                if part is not None and part.is_before(time) and source.filters is None:
                    continue
                resized += (picture.width, picture.height) != source.size and source.holds(time)
                duration = picture.duration
                same = fit_picture(picture, source.size, source.pix_fmt)
                same.duration = duration
                yield clip_samples(same), time

        try:
            for picture, time in filtered(fitted(), source.filters):
                if part is not None and part.is_behind(time):
                    break
                if part is None or not part.is_before(time):
                    frame = Frame(picture, time, source.colour, duration=_duration(picture, stream, source))
                    if part is not None and time in (part.begin, part.end):
                        source.checksums[time] = crc32(frame.rgb().tobytes())
                    yield frame
            is_read = part is None
        finally:  # also where a span of the source ends before the file
            _limit_damage(source, decoder)
            source.errors += joined.errors()
            if is_read and not joined.parts:  # whose times may start again
                source.errors += decoder.missing_end(source.location)
            source.notes += clock.notes()
            if resized:
                width, height = source.size
                source.notes.append(f"{resized} frames of another size were scaled to {width}x{height}")


def _limit_damage(source: Source, decoder: Decoder) -> None:
    """Leaves out the damage of frames that are outside of the part or of the span of the source that is used."""
    part = source.part
    if part is not None:
        decoder.messages.clear()  # reading the whole container without decoding has found them
        decoder.limit_damage(lambda time: not part.holds(time - source.start))
    elif not (source.shifts or source.decode_order):  # else the times of the file are not those of the frames
        decoder.limit_damage(lambda time: not source.holds(time - source.start))


def _duration(picture: av.VideoFrame, stream: VideoStream, source: Source) -> Fraction:
    """Returns how many seconds a picture is shown; one step of the rate if its file has no other duration."""
    duration = picture.duration * (stream.time_base or Fraction(0))
    if duration <= 0 or source.decode_order or source.filters is not None:
        return 1 / source.rate
    exact = round(duration * source.rate) / source.rate
    return exact if source.tick is not None and abs(exact - duration) <= source.tick else duration


def _open_folder(path: Path, rate: Fraction) -> Source:
    pictures = PictureFolder(path)
    source = Source(path, pictures.size, rate, len(pictures.paths), 1 / rate, is_video=False, location=path)
    source.pix_fmt, source.notes, source.pictures = pictures.pix_fmt, pictures.notes, pictures
    return source


def _read_folder(source: Source) -> Generator[Frame, None, None]:
    part, pictures = source.part, source.pictures
    assert pictures is not None
    for i in range(len(pictures.paths)):
        time = i / source.rate - source.start  # as `part` counts
        if part is None or not (part.is_before(time) or part.is_behind(time)):
            yield Frame(pictures.read(i), i / source.rate)
