"""Holds a decoded picture with its time, and converts between its pixel format and RGB."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from video.alpha import has_alpha

UNSPECIFIED = 2  # of matrix, primaries and transfer in ITU-T H.273
HD_HEIGHT = 720  # pictures without a tag are taken as BT.709 from this height on, as BT.601 below
FULL = int(ColorRange.JPEG)
# In steps of the frame rate. A last frame that is shown for longer keeps its duration, and does not count for the rate:
# GIF, screen recordings.
LONG_LAST_FRAME = Fraction(3, 2)
# Only changes of chroma size and depth use swscale. Its own conversion of colours is half a level off in full range and
# two levels of 1023 off at 10 bits, which is visible as flicker between frames; the matrices below are exact.
EXACT_SCALING = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
BT601 = (0.299, 0.114)
BT709 = (0.2126, 0.0722)
LUMA_WEIGHTS = {1: BT709, 4: (0.30, 0.11), 5: BT601, 6: BT601, 7: (0.212, 0.087), 9: (0.2627, 0.0593)}  # red, blue
LUMA_WEIGHTS[10] = LUMA_WEIGHTS[9]
UNSUBSAMPLED = {8: "yuv444p", 10: "yuv444p10le", 12: "yuv444p12le", 16: "yuv444p16le"}  # by bits a channel
RGB_MATRIX = 0  # in ITU-T H.273


@dataclass(frozen=True)
class Colour:
    """Holds the colour tags of a video as ITU-T H.273 codes; the output is tagged the same."""

    matrix: int
    range: int  # 1 limited (16..235), 2 full
    primaries: int
    transfer: int
    height: int

    @classmethod
    def of(cls, picture: av.VideoFrame) -> "Colour":
        """Returns the tags of a decoded picture; the names of the formats yuvj... imply full range."""
        limits = picture.color_range
        if not limits or picture.format.is_rgb:
            full = picture.format.is_rgb or picture.format.name.startswith("yuvj")
            limits = ColorRange.JPEG if full else ColorRange.MPEG
        return cls(picture.colorspace, int(limits), picture.color_primaries, picture.color_trc, picture.height)

    def encoded_as(self, pix_fmt: str, source_fmt: str) -> "Colour":
        """Returns the tags of pictures in the pixel format `pix_fmt`, made from pictures in `source_fmt`."""
        if av.VideoFormat(pix_fmt).is_rgb:
            return replace(self, matrix=RGB_MATRIX, range=FULL)
        if not is_rgb(source_fmt):
            return self
        return replace(self, matrix=1 if self.height >= HD_HEIGHT else 6, range=int(ColorRange.MPEG))

    def describe(self) -> str:
        """Returns the tags that are specified, for the user; empty if none is and the range is limited."""
        names = ("matrix", "primaries", "transfer")
        tags = [f"{name} {value}" for name in names if (value := getattr(self, name)) not in (0, UNSPECIFIED)]
        return ", ".join([*tags, *["full range"] * (self.range == FULL)])

    def to_rgb(self, picture: av.VideoFrame) -> np.ndarray:
        """Converts a decoded picture to RGB or, if its format has alpha, to RGBA.

        Returns (H,W,3 or 4) uint8, or uint16 if it has more than 8 bits a channel.
        """
        bits, alpha = _bits(picture.format), has_alpha(picture.format.name)
        if is_rgb(picture.format.name):
            return picture.to_ndarray(format=_packed(bits > 8, alpha))
        full = self.refit(_without_siting(picture), _unsubsampled(bits, alpha))
        dtype: Any = np.uint16 if bits > 8 else np.uint8
        planes = [np.frombuffer(memoryview(p), dtype).reshape(p.height, -1) for p in full.planes]
        yuv = cv2.merge([plane[:, : picture.width] for plane in planes])
        limit = 65535 if bits > 8 else 255
        inverse = np.linalg.inv(self._rgb_to_yuv(bits))[:3] * limit
        if alpha:
            inverse = _with_alpha(inverse, limit / (2**bits - 1))
        return cv2.transform(yuv, inverse)  # rounds and saturates

    def from_rgb(self, rgb: np.ndarray, pix_fmt: str) -> av.VideoFrame:
        """Converts (H,W,3 or 4) uint8 or uint16 RGB to a picture in this colour space and the encoder's pixel format.

        Alpha is left out if the format holds none, and is opaque if the format holds alpha but the array does not.
        """
        wanted, alpha = av.VideoFormat(pix_fmt), has_alpha(pix_fmt)
        bits = _bits(wanted)
        if bits > 8 and rgb.dtype == np.uint8:
            rgb = rgb.astype(np.uint16) * 257
        if wanted.is_rgb:
            packed = _packed(rgb.dtype == np.uint16, rgb.shape[2] == 4)
            return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), packed).reformat(format=pix_fmt)
        limit = np.iinfo(rgb.dtype).max
        rgb = rgb if alpha or rgb.shape[2] == 3 else np.ascontiguousarray(rgb[..., :3])
        if alpha and rgb.shape[2] == 3:
            rgb = np.dstack((rgb, np.full(rgb.shape[:2], limit, rgb.dtype)))
        forward = self._rgb_to_yuv(bits)[:3] / [limit, limit, limit, 1]
        if alpha:
            forward = _with_alpha(forward, (2**bits - 1) / limit)
        yuv = cv2.transform(rgb, forward).astype(np.uint16 if bits > 8 else np.uint8)
        full = av.VideoFrame(rgb.shape[1], rgb.shape[0], _unsubsampled(bits, alpha))
        for i, plane in enumerate(full.planes):
            np.frombuffer(memoryview(plane), yuv.dtype).reshape(plane.height, -1)[:, : rgb.shape[1]] = yuv[..., i]
        return self.refit(full, pix_fmt)

    def refit(self, picture: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
        """Converts a picture to another format, both RGB or both not; returns it unchanged if it has the format."""
        if picture.format.name == pix_fmt:
            return picture
        # The same matrix and range on both sides: only the size of chroma and the depth change.
        return picture.reformat(
            format=pix_fmt,
            src_colorspace=Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=self.range,
            dst_color_range=self.range,
            interpolation=EXACT_SCALING,
        )

    def _rgb_to_yuv(self, bits: int) -> np.ndarray:
        """Returns the matrix (4,4) from (R, G, B, 1), R, G, B in 0..1, to (Y, U, V, 1) at a bit depth (ITU-T H.273)."""
        untagged = BT709 if self.height >= HD_HEIGHT else BT601
        red, blue = LUMA_WEIGHTS.get(self.matrix, untagged)
        luma = np.array([red, 1 - red - blue, blue])
        u = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
        v = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
        step = 2.0 ** (bits - 8)
        top = 2.0**bits - 1
        spans, floor = ([top] * 3, 0.0) if self.range == FULL else ([219 * step, 224 * step, 224 * step], 16 * step)
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack((luma, u, v)) * np.array(spans)[:, None]
        matrix[:3, 3] = floor, 128 * step, 128 * step
        return matrix


def is_rgb(pix_fmt: str) -> bool:
    """Returns whether a pixel format holds red, green and blue, directly or in a palette."""
    video_format = av.VideoFormat(pix_fmt)
    return video_format.is_rgb or video_format.has_palette


def _without_siting(picture: av.VideoFrame) -> av.VideoFrame:
    """Returns a copy of a picture without its tag of where chroma samples lie, if its chroma has another size.

    swscale follows the tag; PyAV cannot set it on the way back, which would move the chroma of made frames.
    """
    size = picture.width, picture.height
    if all((plane.width, plane.height) == size for plane in picture.planes):
        return picture
    if any(plane.line_size <= 0 for plane in picture.planes):  # stored upside down
        return picture
    copy = av.VideoFrame(*size, picture.format.name)
    for plane, target in zip(picture.planes, copy.planes, strict=True):
        lines, room = (np.frombuffer(memoryview(p), np.uint8).reshape(p.height, -1) for p in (plane, target))
        width = min(lines.shape[1], room.shape[1])  # bytes; the rest is padding
        room[:, :width] = lines[:, :width]
    return copy


def _bits(pix_fmt: av.VideoFormat) -> int:
    """Returns the bits a channel that a format is converted with: the next of 8, 10, 12 and 16."""
    deepest = max(component.bits for component in pix_fmt.components)
    return next((bits for bits in UNSUBSAMPLED if bits >= deepest), 16)


def _packed(deep: bool, alpha: bool) -> str:
    """Returns the format of FFmpeg for an array (H,W,3 or 4) of 8 or 16 bits."""
    return ("rgba64le" if deep else "rgba") if alpha else ("rgb48le" if deep else "rgb24")


def _unsubsampled(bits: int, alpha: bool) -> str:
    """Returns the format of FFmpeg with a whole plane for each of Y, U, V and, if wanted, alpha."""
    return UNSUBSAMPLED[bits].replace("yuv", "yuva") if alpha else UNSUBSAMPLED[bits]


def _with_alpha(matrix: np.ndarray, factor: float) -> np.ndarray:
    """Returns a matrix (3,4) for three channels as (4,5) for these and alpha, which is multiplied by `factor`."""
    wider = np.zeros((4, 5))
    wider[:3, :3], wider[:3, 4], wider[3, 3] = matrix[:, :3], matrix[:, 3], factor
    return wider


Picture = av.VideoFrame | np.ndarray  # decoded from a video; or (H,W,3 or 4), read from a picture file or made


@dataclass
class Frame:
    """Holds a picture and the time at which it is shown, in seconds from the start of the clip."""

    picture: Picture
    time: Fraction
    colour: Colour | None = None  # of a decoded picture
    made: bool = False  # by a network, at a time between two frames of the source
    duration: Fraction | None = None  # seconds; None: until the next frame

    def rgb(self) -> np.ndarray:
        """Returns the picture in RGB or RGBA, (H,W,3 or 4), uint8 or uint16."""
        if isinstance(self.picture, np.ndarray):
            return self.picture
        return (self.colour or Colour.of(self.picture)).to_rgb(self.picture)


@dataclass(frozen=True)
class PictureFormat:
    """Holds the properties that may change within a stream, where its frames get another size."""

    size: tuple[int, int]  # width, height
    pix_fmt: str
    colour: Colour
    aspect: Fraction | None  # of a pixel

    @classmethod
    def of(cls, picture: av.VideoFrame, aspect: Fraction | None) -> "PictureFormat":
        """Returns the format of a decoded picture."""
        return cls((picture.width, picture.height), picture.format.name, Colour.of(picture), aspect)


def fit_picture(picture: av.VideoFrame, size: tuple[int, int], pix_fmt: str) -> av.VideoFrame:
    """Returns a decoded picture in the given size (width, height) and pixel format; unchanged if it has both."""
    if (picture.width, picture.height, picture.format.name) == (*size, pix_fmt):
        return picture
    return picture.reformat(width=size[0], height=size[1], format=pix_fmt, interpolation=EXACT_SCALING)


def clip_samples(picture: av.VideoFrame) -> av.VideoFrame:
    """Returns a decoded picture without samples above the maximum of its bit depth, which damaged streams produce.

    An encoder that is given one reads beyond its tables: x264 ends the whole process.
    """
    depth = max(component.bits for component in picture.format.components)
    if not 8 < depth < 16 or not picture.format.name.endswith(f"p{depth}le"):
        return picture  # every value of 8 or 16 bits is valid
    limit = 2**depth - 1
    planes = [_samples(plane) for plane in picture.planes]
    if max(int(plane.max()) for plane in planes) <= limit:
        return picture
    clipped = av.VideoFrame(picture.width, picture.height, picture.format.name)
    for plane, target in zip(planes, clipped.planes, strict=True):
        np.minimum(plane, limit, out=_samples(target))
    return clipped


def _samples(plane: Any) -> np.ndarray:
    """Returns the 16-bit samples (H,W) of a plane, without the padding of its lines."""
    return np.frombuffer(memoryview(plane), np.uint16).reshape(plane.height, -1)[:, : plane.width]
