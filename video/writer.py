"""Frames -> a video file with the source's other tracks, or numbered pictures. The final name appears when complete."""

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from video.encoding import Encoding, choose_pix_fmt, codec_options, quantise
from video.frame import HD_HEIGHT, UNSPECIFIED, Colour, Frame
from video.picture import MediaError, write_picture
from video.reader import Source
from video.tracks import Tracks

MAX_TIME_BASE = 2**31 - 1  # denominators that containers store in 32 bits
ASPECT_IN_BAND = ("libx264", "libx265", "mpeg4", "mpeg2video")  # encoders that write it into the stream itself
KEEPS_ROTATION = (".mp4", ".mov", ".m4v", ".mkv")  # containers that store a display matrix


class VideoWriter:
    """Encodes frames into `path`, like `source` in colour, aspect, rotation and, if `tracks`, in its other streams.

    The file is written as NAME.part.SUFFIX and renamed when the block ends without an error. Ctrl-C finishes the part
    instead, so that hours of work can be played; any other error removes it.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        rate: Fraction,
        time_base: Fraction,
        *,
        encoding: Encoding | None = None,
        size: tuple[int, int] | None = None,  # width, height if not the source's
        tracks: bool = True,
        overwrite: bool = False,
    ) -> None:
        self.path, self.source, self.frames = path, source, 0
        self.part = path.with_name(f"{path.stem}.part{path.suffix}")
        _check_output(path, self.part, source.path, overwrite)
        encoding = encoding or Encoding()
        self.codec = encoding.codec_for(path)
        width, height = size or source.size
        self.upright = source.rotation != 0 and path.suffix.lower() not in KEEPS_ROTATION
        if self.upright and source.rotation % 180:
            width, height = height, width
        self.pix_fmt = encoding.pix_fmt or choose_pix_fmt(self.codec, source.pix_fmt, width, height)
        self.notes: list[str] = []
        if encoding.pix_fmt is None and (width % 2 or height % 2) and self.pix_fmt == "yuv444p":
            self.notes.append(f"{width}x{height} is odd, kept whole as yuv444p; some players want --pix-fmt yuv420p")
        self.colour = source.colour or Colour(1 if height >= HD_HEIGHT else 6, 1, UNSPECIFIED, UNSPECIFIED, height)
        self._last_pts: int | None = None
        self._tracks: Tracks | None = None
        try:
            self._output = av.open(str(self.part), "w")
        except (FFmpegError, ValueError) as e:
            raise MediaError(f"{path}: cannot be written ({_reason(e)}); choose another --output or --ext") from e
        try:
            self._stream = self._video_stream(encoding, rate, time_base, width, height)
            if tracks and source.is_video:
                self._tracks = Tracks(source.location, self._output, source.start)
                self.notes += self._tracks.notes
            self._output.start_encoding()
        except (FFmpegError, ValueError, TypeError) as e:
            self._discard()
            if isinstance(e, MediaError):
                raise
            raise MediaError(
                f"{path}: {self.codec} in {path.suffix} with {self.pix_fmt} at {width}x{height} is refused "
                f"({_reason(e)}); choose another --codec, --pix-fmt or --ext"
            ) from e

    def _video_stream(self, encoding: Encoding, rate: Fraction, time_base: Fraction, width: int, height: int) -> Any:
        stream: Any = self._output.add_stream(self.codec, rate=rate)
        encoder = stream.codec_context
        encoder.width, encoder.height, encoder.pix_fmt = width, height, self.pix_fmt
        encoder.time_base = _storable(time_base, rate)
        encoder.framerate = rate
        if self.source.aspect and self.source.aspect != 1:
            turned = self.upright and self.source.rotation % 180
            encoder.sample_aspect_ratio = aspect = 1 / self.source.aspect if turned else self.source.aspect
            if self.codec not in ASPECT_IN_BAND and self.path.suffix.lower() not in (".mp4", ".mov", ".m4v"):
                self.notes.append(f"pixel aspect {aspect} cannot be stored with {self.codec} in {self.path.suffix}")
        if self.source.colour is not None or self.pix_fmt.startswith("yuv"):
            encoder.colorspace, encoder.color_range = self.colour.matrix, self.colour.range
            encoder.color_primaries, encoder.color_trc = self.colour.primaries, self.colour.transfer
        if self.source.display_matrix and not self.upright:
            stream.set_display_matrix(self.source.display_matrix)
        encoder.options = codec_options(self.codec, encoding, {o.name for o in encoder.supported_options.private})
        encoder.thread_type = "AUTO"
        encoder.open()
        return stream

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frame: Frame) -> None:
        """Encodes one frame at its time; times must rise."""
        picture = self._picture(frame)
        picture.time_base = self._stream.codec_context.time_base
        pts = round(frame.time / picture.time_base)
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1
        picture.pts = self._last_pts = pts
        picture.pict_type = 0  # the decoder's choice of I, P, B is not the encoder's
        self._mux(self._stream.encode(picture))
        self.frames += 1

    def _picture(self, frame: Frame) -> av.VideoFrame:
        if not self.upright and self.pix_fmt != "pal8" and not isinstance(frame.picture, np.ndarray):
            return self._tag(self.colour.refit(frame.picture, self.pix_fmt))
        rgb = upright(frame.rgb(), self.source.rotation if self.upright else 0)
        if rgb.dtype.kind == "f":
            raise MediaError(f"{self.path}: cannot show light (float pictures); write pictures with --png instead")
        if self.pix_fmt == "pal8":
            return quantise(rgb)
        return self._tag(self.colour.from_rgb(opaque(rgb), self.pix_fmt))

    def _tag(self, picture: av.VideoFrame) -> av.VideoFrame:
        picture.colorspace, picture.color_range = self.colour.matrix, self.colour.range
        return picture

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            if self._tracks is not None and packet.dts is not None and packet.time_base:
                self._tracks.write_until(packet.dts * packet.time_base)
            self._output.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt) and self.frames > 0
        if kind is not None and not interrupted:
            self._discard()
            return
        try:
            self._mux(self._stream.encode(None))
            if self._tracks is not None and not interrupted:
                self._tracks.write_until(None)
            self._close()
        except BaseException:
            self._discard()
            raise
        if interrupted:
            self.notes.append(f"interrupted: what was made until then is in {self.part}")
        else:
            os.replace(self.part, self.path)

    def _close(self) -> None:
        if self._tracks is not None:
            self._tracks.close()
        self._output.close()

    def _discard(self) -> None:
        with suppress(FFmpegError, ValueError):
            self._close()
        self.part.unlink(missing_ok=True)


class PictureWriter:
    """Writes frames as folder/0000000.png, 0000001.png ... as upstream's --png does, over what is there."""

    def __init__(self, folder: Path, source: Source) -> None:
        self.path, self.rotation, self.frames = folder, source.rotation, 0
        self.notes: list[str] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise MediaError(f"{folder}: cannot be made ({e.strerror}); choose another folder with --output") from e
        if not os.access(folder, os.W_OK):
            raise MediaError(f"{folder}: cannot be written to; choose another folder with --output")

    def __enter__(self) -> "PictureWriter":
        return self

    def write(self, frame: Frame) -> None:
        """Writes one frame under the next number."""
        rgb = upright(frame.rgb(), self.rotation)
        suffix = ".exr" if rgb.dtype.kind == "f" else ".png"
        write_picture(self.path / f"{self.frames:07d}{suffix}", rgb)
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stale = [p for p in self.path.glob("*.png") if p.stem.isdigit() and int(p.stem) >= self.frames]
        if stale:
            self.notes.append(f"{len(stale)} pictures of a longer earlier run are still there, from {min(stale)} on")


def opaque(rgb: np.ndarray) -> np.ndarray:
    """(H,W,3 or 4) -> (H,W,3), contiguous; what is transparent becomes black."""
    if rgb.shape[2] == 4:
        limit = np.iinfo(rgb.dtype).max
        rgb = (rgb[..., :3] * (rgb[..., 3:] / limit)).round().astype(rgb.dtype)
    return np.ascontiguousarray(rgb)


def upright(rgb: np.ndarray, rotation: int) -> np.ndarray:
    """A picture turned as a player would show it; rotation in degrees counter-clockwise."""
    return np.rot90(rgb, rotation // 90)


def _check_output(path: Path, part: Path, source: Path, overwrite: bool) -> None:
    if path.exists() and path.resolve() == source.resolve():
        raise MediaError(f"{path}: is the source itself; choose another --output")
    if path.exists() and not overwrite:
        raise MediaError(f"{path}: exists already; give --overwrite to replace it, or another --output")
    if part.exists() and not overwrite:
        raise MediaError(
            f"{part}: exists already, left by an interrupted run or in use by one that goes on; move it away, or give "
            "--overwrite to replace it, or another --output"
        )
    if not path.parent.is_dir():
        raise MediaError(f"{path}: its folder does not exist; make it or choose another --output")
    if not os.access(path.parent, os.W_OK):
        raise MediaError(f"{path}: its folder cannot be written to; choose another --output")


def _storable(time_base: Fraction, rate: Fraction) -> Fraction:
    """The time base asked for, or the frame's own duration if containers cannot store that."""
    return time_base if time_base.denominator <= MAX_TIME_BASE else 1 / rate


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
