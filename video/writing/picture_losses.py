"""Names what an output cannot keep of the source's picture: transparency, depth, chroma, HDR metadata, captions."""

from fractions import Fraction

import av

from video.alpha import has_alpha
from video.frame import is_rgb
from video.hdr import VIEWS
from video.reading.reader import Source
from video.writing.encoding import holds_captions


def describe_losses(
    source: Source, codec: str, pix_fmt: str, rate: Fraction, *, upright: bool, suffix: str = ""
) -> list[str]:
    """Returns a line for the user for each property of the source's picture that an output does not hold.

    The output is encoded as `pix_fmt` at `rate` frames/s, turned if `upright`, into a file whose name ends in `suffix`.
    """
    notes = []
    if has_alpha(source.pix_fmt) and not has_alpha(pix_fmt):
        notes.append(f"transparency cannot be kept: {codec} holds none as {pix_fmt}; it becomes black")
    elif has_alpha(source.pix_fmt) and pix_fmt == "pal8":
        notes.append("a pixel of this output is transparent or not: half transparent ones become one of both")
    bits, kept = _bits(source.pix_fmt), _bits(pix_fmt)
    if bits > kept:
        notes.append(f"{bits} bits become {kept}: {codec} gets {pix_fmt}")
    if not is_rgb(source.pix_fmt) and not is_rgb(pix_fmt) and _chroma(source.pix_fmt) > _chroma(pix_fmt):
        notes.append(f"colours get fewer pixels: {source.pix_fmt} becomes {pix_fmt}")
    if lost := source.hdr.lost(codec, suffix):
        notes.append(f"HDR metadata not carried: {lost}; the colours keep their tags")
    if marks := [mark for mark in source.view_marks if not _keeps_mark(source, mark, codec, suffix)]:
        notes.append(f"marks for players not carried: {', '.join(marks)}; the picture itself is unchanged")
    if source.pictures is not None and source.pictures.has_profile:
        notes.append("the colour profile of the pictures is not carried: a video holds none")
    if source.has_captions and not _keeps_captions(source, codec, pix_fmt, rate, upright):
        notes.append("closed captions inside the picture are dropped: they need H.264, and every frame of the source")
    return notes


def _bits(pix_fmt: str) -> int:
    video_format = av.VideoFormat(pix_fmt)
    return 8 if video_format.has_palette else max(component.bits for component in video_format.components)


def _chroma(pix_fmt: str) -> int:
    """Returns the chroma samples of each plane for 8x8 pixels; 0 for grey."""
    video_format = av.VideoFormat(pix_fmt, 8, 8)
    if pix_fmt.startswith(("gray", "ya")) or len(video_format.components) < 3:
        return 0
    return video_format.chroma_width() * video_format.chroma_height()


def _keeps_mark(source: Source, mark: str, codec: str, suffix: str) -> bool:
    """Returns whether the output has the mark: x264 stores a stereo layout, and Matroska has it as a tag."""
    tagged = {source.path.suffix.lower(), suffix.lower()} <= {".mkv", ".webm"}
    return mark == VIEWS["STEREO3D"] and (codec == "libx264" or tagged)


def _keeps_captions(source: Source, codec: str, pix_fmt: str, rate: Fraction, upright: bool) -> bool:
    """Returns whether the source's frames reach the encoder with their captions, and it stores them."""
    every_frame = (rate / source.rate).denominator == 1 and source.speed is None
    as_they_are = not upright and source.filters is None and source.pix_fmt.replace("yuvj", "yuv") == pix_fmt
    return holds_captions(codec) and every_frame and as_they_are
