"""A picture at a time, kept as it was decoded: YUV of any depth goes to the encoder untouched, RGB is made on demand."""

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Colorspace, ColorRange, Interpolation

UNSPECIFIED = 2  # of matrix, primaries and transfer in ITU-T H.273
HD_HEIGHT = 720  # pictures without a tag are taken as BT.709 from this height on, as BT.601 below
# Chroma at full resolution and exact rounding: 76 dB for a round trip through RGB, against 47 dB by default.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP

_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


@dataclass(frozen=True)
class Colour:
    """How a decoded picture's numbers mean colours, as ITU-T H.273 codes; the tags that the output repeats."""

    matrix: int
    range: int  # 1 limited (16..235), 2 full
    primaries: int
    transfer: int
    height: int

    @classmethod
    def of(cls, picture: av.VideoFrame) -> "Colour":
        """The tags of a decoded picture; the old full-range formats (yuvj420p) say their range by their name."""
        limits = picture.color_range
        if not limits:
            limits = ColorRange.JPEG if picture.format.name.startswith("yuvj") else ColorRange.MPEG
        return cls(picture.colorspace, int(limits), picture.color_primaries, picture.color_trc, picture.height)

    @property
    def conversion(self) -> Colorspace:
        """The matrix to convert with, both ways."""
        untagged = Colorspace.ITU709 if self.height >= HD_HEIGHT else Colorspace.ITU601
        return _MATRICES.get(self.matrix, untagged)

    def to_rgb(self, picture: av.VideoFrame) -> np.ndarray:
        """(H,W,3), uint8, or uint16 for a picture of more than 8 bits a channel."""
        deep = max(component.bits for component in picture.format.components) > 8
        rgb = picture.reformat(
            format="rgb48le" if deep else "rgb24",
            src_colorspace=self.conversion,
            src_color_range=self.range,
            dst_color_range=ColorRange.JPEG,
            interpolation=EXACT,
        )
        return rgb.to_ndarray()

    def from_rgb(self, rgb: np.ndarray, pix_fmt: str) -> av.VideoFrame:
        """(H,W,3) uint8 or uint16 -> a picture for the encoder, in this colour space."""
        picture = av.VideoFrame.from_ndarray(rgb, "rgb48le" if rgb.dtype == np.uint16 else "rgb24")
        return picture.reformat(
            format=pix_fmt,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=self.conversion,
            dst_color_range=self.range,
            interpolation=EXACT,
        )

    def refit(self, picture: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
        """The same picture in the encoder's pixel format: untouched if it has it already."""
        if picture.format.name == pix_fmt:
            return picture
        if not picture.format.is_rgb and "yuv" in pix_fmt:
            matrix, limits = self.conversion, self.range
            return picture.reformat(
                format=pix_fmt,
                src_colorspace=matrix,
                dst_colorspace=matrix,
                src_color_range=limits,
                dst_color_range=limits,
                interpolation=EXACT,
            )
        return self.from_rgb(self.to_rgb(picture), pix_fmt)


@dataclass
class Frame:
    """A picture and the time it appears, in seconds since the start of the clip."""

    picture: av.VideoFrame | np.ndarray  # as decoded; or (H,W,3) RGB, uint8 or uint16, as read from a file or made
    time: Fraction
    colour: Colour | None = None  # of a decoded picture

    def rgb(self) -> np.ndarray:
        """(H,W,3), uint8 or uint16"""
        if isinstance(self.picture, np.ndarray):
            return self.picture
        return (self.colour or Colour.of(self.picture)).to_rgb(self.picture)

