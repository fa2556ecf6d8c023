"""Holds a decoded picture with its time, and converts between its pixel format and RGB."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

UNSPECIFIED = 2  # of matrix, primaries and transfer in ITU-T H.273
HD_HEIGHT = 720  # pictures without a tag are taken as BT.709 from this height on, as BT.601 below
FULL = int(ColorRange.JPEG)
# Only changes of chroma size and depth use swscale. Its own conversion of colours is half a level off in full range and
# two levels of 1023 off at 10 bits, which is visible as flicker between frames; the matrices below are exact.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
BT601 = (0.299, 0.114)
BT709 = (0.2126, 0.0722)
LUMA_WEIGHTS = {1: BT709, 4: (0.30, 0.11), 5: BT601, 6: BT601, 7: (0.212, 0.087), 9: (0.2627, 0.0593)}  # red, blue
LUMA_WEIGHTS[10] = LUMA_WEIGHTS[9]
UNSUBSAMPLED = {8: "yuv444p", 10: "yuv444p10le", 12: "yuv444p12le", 16: "yuv444p16le"}  # by bits a channel


@dataclass(frozen=True)
class Colour:
    """The colour tags of a video as ITU-T H.273 codes; the output is tagged the same."""

    matrix: int
    range: int  # 1 limited (16..235), 2 full
    primaries: int
    transfer: int
    height: int

    @classmethod
    def of(cls, picture: av.VideoFrame) -> "Colour":
        """Returns the tags of a decoded picture; the names of the formats yuvj... imply full range."""
        limits = picture.color_range
        if not limits:
            limits = ColorRange.JPEG if picture.format.name.startswith("yuvj") else ColorRange.MPEG
        return cls(picture.colorspace, int(limits), picture.color_primaries, picture.color_trc, picture.height)

    def to_rgb(self, picture: av.VideoFrame) -> np.ndarray:
        """Converts a decoded picture to RGB: (H,W,3) uint8, or uint16 if it has more than 8 bits a channel."""
        bits = _bits(picture.format)
        if picture.format.is_rgb or picture.format.name == "pal8":
            return picture.to_ndarray(format="rgb48le" if bits > 8 else "rgb24")
        full = self.refit(picture, UNSUBSAMPLED[bits])
        dtype: Any = np.uint16 if bits > 8 else np.uint8
        planes = [np.frombuffer(memoryview(p), dtype).reshape(p.height, -1) for p in full.planes]
        yuv = cv2.merge([plane[:, : picture.width] for plane in planes])
        limit = 65535 if bits > 8 else 255
        inverse = np.linalg.inv(self._rgb_to_yuv(bits))[:3] * limit
        return cv2.transform(yuv, inverse)  # rounds and saturates

    def from_rgb(self, rgb: np.ndarray, pix_fmt: str) -> av.VideoFrame:
        """Converts (H,W,3) uint8 or uint16 RGB to a picture in this colour space and the encoder's pixel format."""
        wanted = av.VideoFormat(pix_fmt)
        if wanted.is_rgb:
            deep = rgb.dtype == np.uint16
            return av.VideoFrame.from_ndarray(rgb, "rgb48le" if deep else "rgb24").reformat(format=pix_fmt)
        bits = _bits(wanted)
        if bits > 8 and rgb.dtype == np.uint8:
            rgb = rgb.astype(np.uint16) * 257
        limit = np.iinfo(rgb.dtype).max
        forward = self._rgb_to_yuv(bits)[:3] / [limit, limit, limit, 1]
        yuv = cv2.transform(rgb, forward).astype(np.uint16 if bits > 8 else np.uint8)
        full = av.VideoFrame(rgb.shape[1], rgb.shape[0], UNSUBSAMPLED[bits])
        for i, plane in enumerate(full.planes):
            np.frombuffer(memoryview(plane), yuv.dtype).reshape(plane.height, -1)[:, : rgb.shape[1]] = yuv[..., i]
        return self.refit(full, pix_fmt)

    def refit(self, picture: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
        """Converts a picture to the encoder's pixel format; returns it unchanged if it has that format."""
        if picture.format.name == pix_fmt:
            return picture
        if picture.format.is_rgb != av.VideoFormat(pix_fmt).is_rgb or picture.format.name == "pal8":
            return self.from_rgb(self.to_rgb(picture), pix_fmt)
        # The same matrix and range on both sides: only the size of chroma and the depth change.
        return picture.reformat(
            format=pix_fmt,
            src_colorspace=Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=self.range,
            dst_color_range=self.range,
            interpolation=EXACT,
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


def _bits(pix_fmt: av.VideoFormat) -> int:
    """Returns the bits a channel that a format is converted with: the next of 8, 10, 12 and 16."""
    deepest = max(component.bits for component in pix_fmt.components)
    return next(bits for bits in UNSUBSAMPLED if bits >= deepest)


Picture = av.VideoFrame | np.ndarray  # decoded from a video; or (H,W,3 or 4), read from a picture file or made


@dataclass
class Frame:
    """A picture and the time it is shown at, in seconds from the start of the clip."""

    picture: Picture
    time: Fraction
    colour: Colour | None = None  # of a decoded picture
    made: bool = False  # by a network, at a time between two frames of the source
    duration: Fraction | None = None  # seconds; None: until the next frame

    def rgb(self) -> np.ndarray:
        """Returns the picture in RGB, (H,W,3), uint8 or uint16."""
        if isinstance(self.picture, np.ndarray):
            return self.picture
        return (self.colour or Colour.of(self.picture)).to_rgb(self.picture)


def fit_picture(picture: av.VideoFrame, size: tuple[int, int], pix_fmt: str) -> av.VideoFrame:
    """Returns a decoded picture in the given size (width, height) and pixel format; unchanged if it has both."""
    if (picture.width, picture.height, picture.format.name) == (*size, pix_fmt):
        return picture
    return picture.reformat(width=size[0], height=size[1], format=pix_fmt, interpolation=EXACT)


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
