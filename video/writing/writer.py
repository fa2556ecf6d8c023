"""Writes frames as a video file, with the source's other tracks. The final name appears when the file is complete."""

from fractions import Fraction
from math import ceil
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from model.errors import UserError
from video.alpha import has_alpha, opaque
from video.containers import container_of
from video.frame import UNSPECIFIED, Colour, Frame, is_rgb
from video.losses import WRITE_ERRORS, reason
from video.pictures.picture import MediaError
from video.reading.container import main_video, open_container, read_packets
from video.reading.pipe import OutputPipe
from video.reading.reader import Source
from video.safe_file import SafeFile, check_output
from video.writing.animated_picture import count_plays
from video.writing.encoding import Encoding, VideoSettings, check_pix_fmt, choose_pix_fmt, quantise
from video.writing.frame_writer import FrameWriter
from video.writing.lost_tags import describe_left_out
from video.writing.muxer import CopiedVideo, Muxer
from video.writing.picture_losses import describe_losses
from video.writing.picture_writer import upright
from video.writing.tracks import Tracks
from video.writing.trial import plan_output, try_picture

MAX_TIME_BASE = 2**31 - 1  # denominators that containers store in 32 bits
ASPECT_IN_BAND = ("libx264", "libx265", "mpeg4", "mpeg2video")  # encoders that write it into the stream itself
FEWEST_FRAMES_KEPT = 2  # frames of a part that is worth keeping


class VideoWriter(FrameWriter):
    """Encodes frames into `path`, like `source` in colour, aspect, rotation and, if `tracks`, in its other streams.

    The whole output is tried before the first frame: MediaError names what is refused. The file is written as
    NAME.part.SUFFIX and gets its name when the block ends without an error. Any error, Ctrl-C or a full disk finishes
    the part instead as far as it can be, so that hours of work can be played. `inputs` are never replaced.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        rate: Fraction,
        time_base: Fraction,
        *,
        encoding: Encoding | None = None,
        tracks: bool = True,
        overwrite: bool = False,
        inputs: tuple[Path, ...] = (),
        template: VideoStream | None = None,  # of packets that `copy` gets: none is encoded then
        trial: bool = True,  # before the first frame
        pipe: OutputPipe | None = None,  # that gets the output in place of a file; `path` is its name
    ) -> None:
        self.path, self.source, self.frames = path, source, 0
        self.notes: list[str] = []
        if isinstance(source.location, Path):
            inputs = (source.path, *inputs)
        if pipe is None:
            check_output(path, inputs, overwrite=overwrite)
        self._container = container_of(path.suffix)
        self.upright = source.rotation != 0 and not self._container.has_rotation
        encoding = encoding or Encoding()
        self._settings = self._video_settings(encoding, rate, time_base)
        self._last_pts: int | None = None
        animation = self._container.animation
        fastest = 1 / self._settings.time_base if animation is None else animation.fastest
        self._shortest = ceil(1 / fastest / self._settings.time_base)  # units of the time base
        options = {} if animation is None else animation.play_options(count_plays(source.path))
        self._stopped = False
        self._tracks: Tracks | None = None
        if tracks and source.is_video:
            plan = plan_output(path, self._settings, source, audio=encoding.audio)
            self.notes += plan.notes
            options |= plan.options
            self._tracks = Tracks(source, plan.tracks)
        elif trial:
            try_picture(path, self._settings)
            self.notes += describe_left_out(source, "a video whose frames are played at another rate")
        self._file = pipe or SafeFile(path, inputs, overwrite=overwrite)
        try:
            video = self._settings if template is None else CopiedVideo(template, rate)
            self._muxer = Muxer(self._file, video, self._tracks, options)
        except WRITE_ERRORS as e:
            self._file.discard()
            if isinstance(e, UserError):
                raise
            raise MediaError(f"{path}: cannot be written ({reason(e)}); choose another output or make room") from e

    def _video_settings(self, encoding: Encoding, rate: Fraction, time_base: Fraction) -> VideoSettings:
        """Returns the settings of the video stream; adds notes about what cannot be kept."""
        source, codec = self.source, encoding.codec_for(self.path)
        turned = self.upright and source.rotation % 180 != 0
        width, height = source.size[::-1] if turned else source.size
        pix_fmt = check_pix_fmt(encoding.pix_fmt) or choose_pix_fmt(
            codec, source.pix_fmt, width, height, self.path.suffix.lower()
        )
        if encoding.pix_fmt is None and (width % 2 or height % 2) and pix_fmt == "yuv444p":
            self.notes.append(f"{width}x{height} is odd, kept whole as yuv444p; some players need yuv420p")
        self.notes += describe_losses(source, codec, pix_fmt, rate, upright=self.upright, suffix=self.path.suffix)
        untagged = Colour(UNSPECIFIED, 1, UNSPECIFIED, UNSPECIFIED, height)
        self.colour = (source.colour or untagged).encoded_as(pix_fmt, source.pix_fmt)
        if not self._container.has_colour_tags and (tags := self.colour.describe()):
            self.notes.append(f"colour tags cannot be stored in {self.path.suffix}: {tags}")
        aspect = None
        if source.aspect and source.aspect != 1:
            aspect = 1 / source.aspect if turned else source.aspect
            if codec not in ASPECT_IN_BAND and not self._container.has_aspect:
                self.notes.append(f"pixel aspect {aspect} cannot be stored with {codec} in {self.path.suffix}")
        return VideoSettings(
            codec,
            pix_fmt,
            width,
            height,
            rate,
            time_base if time_base.denominator <= MAX_TIME_BASE and self._container.has_times else 1 / rate,
            encoding,
            self.colour if pix_fmt != "pal8" else None,
            aspect,
            None if self.upright else source.display_matrix,
            source.hdr,
        )

    @property
    def part(self) -> Path:
        """Returns the name of the file until it is complete."""
        return self._file.part

    @property
    def errors(self) -> list[str]:
        """Returns what was lost of the other tracks, a line for each track."""
        return self._tracks.errors if self._tracks is not None else []

    def write(self, frame: Frame) -> None:
        """Encodes one frame at its time; times must rise. Raises MediaError, also if the disk is full."""
        try:
            picture = self._picture(frame)
            picture.time_base = self._settings.time_base
            pts = round(frame.time / picture.time_base)
            if self._last_pts is not None:
                pts = max(pts, self._last_pts + self._shortest)
            self._muxer.last = pts * picture.time_base, frame.duration
            picture.pts = self._last_pts = pts
            picture.pict_type = 0  # the decoder's choice of I, P, B is not the encoder's
            self._muxer.encode(picture)
        except WRITE_ERRORS as e:
            raise self._refusal(e, f"the frame at {float(frame.time):.3f} s") from e
        self.frames += 1

    def set_end(self, time: Fraction, duration: Fraction) -> None:
        """Sets the time of the frame that is shown last, and how long it is shown, both in seconds."""
        self._muxer.last = time, duration

    def copy(self, packet: Packet, *, is_last: bool) -> None:
        """Writes one packet that is encoded already, with the times that it has. Raises MediaError."""
        try:
            packet.stream = self._muxer.stream
            self._muxer.write(packet, is_last=is_last)
        except WRITE_ERRORS as e:
            raise self._refusal(e, "a packet") from e
        self.frames += 1

    def _picture(self, frame: Frame) -> av.VideoFrame:
        pix_fmt, picture = self._settings.pix_fmt, frame.picture
        if not self.upright and not isinstance(picture, np.ndarray) and _is_exact(picture.format.name, pix_fmt):
            return self._tag(self.colour.refit(picture, pix_fmt))
        rgb = upright(frame.rgb(), self.source.rotation if self.upright else 0)
        if rgb.dtype.kind == "f":
            raise MediaError(f"{self.path}: a video cannot hold pictures of floats; write pictures instead")
        if pix_fmt == "pal8":
            return quantise(rgb)
        return self._tag(self.colour.from_rgb(rgb if has_alpha(pix_fmt) else opaque(rgb), pix_fmt))

    def _tag(self, picture: av.VideoFrame) -> av.VideoFrame:
        picture.colorspace, picture.color_range = self.colour.matrix, self.colour.range
        return picture

    def finish(self) -> None:
        """Flushes the encoder, writes the rest of the tracks and the trailer, and gives the file its final name."""
        try:
            self._muxer.encode(None)
            if self._tracks is not None:
                self._tracks.finish()
            self._muxer.close()
            self._file.commit()
            self._stopped = True
        except BaseException as e:
            self.stop()
            if isinstance(e, WRITE_ERRORS):
                raise self._refusal(e, "its end") from e
            raise

    def _refusal(self, error: Exception, what: str) -> UserError:
        if isinstance(error, UserError):
            return error
        if self._file.error is not None or not isinstance(error, FFmpegError):
            return MediaError(f"{self.path}: cannot be written any further ({reason(error)}); make room for it")
        return MediaError(f"{self.path}: {what} cannot be encoded ({reason(error)}); choose another codec")

    def stop(self) -> None:
        """Finishes the part as far as possible and keeps it; removes it if it holds nothing to play."""
        if self._stopped:
            return
        self._stopped = True
        self._muxer.abandon()
        self._file.keep()
        if isinstance(self._file, OutputPipe):
            if self._file.error is None:
                self.notes.append(f"{self.path} ends after {self.frames} frames")
            return
        if self.frames < FEWEST_FRAMES_KEPT or not _holds_pictures(self.part):
            self._file.discard()
            return
        self.notes.append(f"what was made until then is in {self.part}")


def _holds_pictures(path: Path) -> bool:
    """Returns whether a picture can be read from a file that may end anywhere."""
    try:
        with open_container(path) as container:
            stream = main_video(container)
            return stream is not None and any(packet.size for packet in read_packets(container, [stream]))
    except (MediaError, FFmpegError):
        return False


def _is_exact(pix_fmt: str, encoded: str) -> bool:
    """Returns whether pictures are encoded in another pixel format without a conversion of their colours."""
    if is_rgb(pix_fmt) != is_rgb(encoded) or av.VideoFormat(encoded).has_palette:
        return False
    return has_alpha(encoded) or not has_alpha(pix_fmt)
