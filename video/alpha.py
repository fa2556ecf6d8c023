"""Finds which pixel formats hold transparency and whether a picture has any; returns pictures without it."""

from collections.abc import Iterable
from typing import Any, cast

import av
import numpy as np
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

# Decoders of these formats give every picture an alpha channel or a palette, which is opaque in most files.
ANIMATIONS = ("gif", "apng", "webp", "webp_anim")
# The native decoders of VP8 and VP9 leave out alpha, which WebM stores beside the packets of colour.
ALPHA_MODE = "alpha_mode"  # mark of such a stream
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def has_alpha(pix_fmt: str) -> bool:
    """Returns whether pictures of a pixel format may be transparent."""
    video_format = av.VideoFormat(pix_fmt)
    return video_format.has_palette or any(component.is_alpha for component in video_format.components)


def without_alpha(pix_fmt: str) -> str:
    """Returns the pixel format that holds the colours of another one, but no alpha."""
    video_format = av.VideoFormat(pix_fmt)
    if video_format.is_rgb or video_format.has_palette:
        return "rgb48le" if max(component.bits for component in video_format.components) > 8 else "rgb24"
    return "gray" if pix_fmt == "ya8" else pix_fmt.replace("yuva", "yuv").replace("ya", "gray")


def is_transparent(picture: av.VideoFrame) -> bool:
    """Returns whether a sample of a picture is not opaque."""
    if not has_alpha(picture.format.name):
        return False
    deep = max(component.bits for component in picture.format.components) > 8
    rgba = picture.to_ndarray(format="rgba64le" if deep else "rgba")
    return bool(rgba[..., 3].min() < (65535 if deep else 255))


def source_format(codec: str, first: av.VideoFrame, pictures: Iterable[av.VideoFrame]) -> str:
    """Returns the pixel format that holds every picture of a source, without a palette.

    `pictures` are read up to the first that is not opaque, and only where the format alone leaves it open.
    """
    name = first.format.name
    palette = first.format.has_palette
    if codec not in ANIMATIONS and not palette:
        return name
    if not has_alpha(name):
        return name
    if not any(is_transparent(picture) for picture in pictures):
        return without_alpha(name)
    return "rgba" if palette else name


def alpha_decoder(stream: VideoStream) -> VideoCodecContext:
    """Returns the decoder of a stream: one that decodes alpha if the container marks the stream as having it.

    It has the colour tags of the container, which the stream itself may not repeat.
    """
    native = stream.codec_context
    name = ALPHA_DECODERS.get(native.codec.canonical_name)
    marks = {key.lower(): value for key, value in stream.metadata.items()}  # a tag of the file may be in capitals
    if name is None or marks.get(ALPHA_MODE) != "1":
        return native
    decoder: Any = CodecContext.create(name, "r")
    decoder.extradata = native.extradata
    for tag in ("colorspace", "color_range", "color_primaries", "color_trc"):
        setattr(decoder, tag, getattr(native, tag))
    return cast(VideoCodecContext, decoder)


def opaque(rgb: np.ndarray) -> np.ndarray:
    """Returns (H,W,3 or 4) as (H,W,3), contiguous; what is transparent becomes black."""
    if rgb.shape[2] == 4:
        limit = np.iinfo(rgb.dtype).max
        rgb = (rgb[..., :3] * (rgb[..., 3:] / limit)).round().astype(rgb.dtype)
    return np.ascontiguousarray(rgb)
