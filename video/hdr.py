"""Reads static metadata of HDR video from decoded pictures, and gives it to encoders or containers that store it."""

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from video.containers import container_of

MASTERING = struct.Struct("22i")  # AVMasteringDisplayMetadata: 10 rational numbers and two flags
CHROMATICITY, LUMINANCE = 50_000, 10_000  # units a 1 and a candela/m2 in H.265, D.2.28
CAPTION_DATA = "A53_CC"  # kind of side data: closed captions
# Formats without a place for the metadata, by encoder, with their names in Matroska.
CONTAINED = {"ffv1": b"V_FFV1", "libvpx-vp9": b"V_VP9"}
VIEWS = {"STEREO3D": "stereo layout", "SPHERICAL": "spherical projection"}  # kinds of side data, and their names
DYNAMIC = {
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DOVI_METADATA": "Dolby Vision",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
}


@dataclass(frozen=True)
class Hdr:
    """Holds the display that a video was mastered on, its brightest light, and names of metadata of single frames."""

    display: tuple[Fraction, ...] | None = None  # x, y of red, green, blue, white; darkest, brightest in cd/m2
    light: tuple[int, int] | None = None  # cd/m2: of the brightest pixel, of the brightest frame's mean
    dynamic: tuple[str, ...] = ()

    @classmethod
    def of(cls, picture: av.VideoFrame) -> "Hdr":
        """Returns the metadata of a decoded picture."""
        display, light = None, None
        data = side_data(picture, "MASTERING_DISPLAY_METADATA")
        if len(data) >= MASTERING.size:
            numbers = MASTERING.unpack_from(data)
            if all(numbers[20:]) and all(numbers[1:20:2]):  # with primaries and luminance
                display = tuple(Fraction(*numbers[i : i + 2]) for i in range(0, 20, 2))
        data = side_data(picture, "CONTENT_LIGHT_LEVEL")
        if len(data) >= 8:
            light = struct.unpack_from("2I", data)
        dynamic = {name: None for kind, name in DYNAMIC.items() if side_data(picture, kind)}
        return cls(display, light, tuple(dynamic))

    def options(self, codec: str) -> dict[str, str]:
        """Returns the settings of an encoder that store the static metadata; none if it cannot store them."""
        if codec == "libsvtav1":
            return self._settings("svtav1-params", "mastering-display", "content-light", 1, 1)
        if codec == "libx265":
            return self._settings("x265-params", "master-display", "max-cll", CHROMATICITY, LUMINANCE)
        if codec == "libx264":
            return self._settings("x264-params", "mastering-display", "cll", CHROMATICITY, LUMINANCE)
        return {}

    def stream_header(self, codec: str) -> bytes | None:
        """Returns a Matroska file without frames, whose stream has the static metadata beside the encoded frames.

        A stream of an output that is made like it has the metadata too: PyAV has no other way to set them. None if
        there are none, or if the format of the encoder is not one of CONTAINED.
        """
        if codec not in CONTAINED or not self._static():
            return None
        light = [] if self.light is None else [_element("55BC", self.light[0]), _element("55BD", self.light[1])]
        numbers = ("55D1", "55D2", "55D3", "55D4", "55D5", "55D6", "55D7", "55D8", "55DA", "55D9")  # as in `display`
        points = map(_element, numbers, self.display or ())
        display = [] if self.display is None else [_element("55D0", *points)]
        picture = _element("E0", _element("B0", 16), _element("BA", 16), _element("55B0", *light, *display))
        track = [_element("D7", 1), _element("73C5", 1), _element("83", 1), _element("86", CONTAINED[codec]), picture]
        tracks = _element("1654AE6B", _element("AE", *track))
        cluster = _element("1F43B675", _element("E7", 0))
        return _element("1A45DFA3", _element("4282", b"matroska")) + _element("18538067", tracks, cluster)

    def lost(self, codec: str, suffix: str = "") -> str:
        """Returns the names of what an output does not hold, for the user; empty if nothing is lost.

        The output is made by this encoder into a file whose name ends in `suffix`.
        """
        contained = codec in CONTAINED and container_of(suffix).has_hdr
        static = [] if contained or self.options(codec) else self._static()
        return ", ".join([*static, *self.dynamic])

    def _static(self) -> list[str]:
        return ["mastering display"] * (self.display is not None) + ["content light level"] * (self.light is not None)

    def _settings(self, option: str, display: str, light: str, unit: int, candela: int) -> dict[str, str]:
        parts = []
        if self.display is not None:
            x = [_number(value, unit) for value in self.display[:8]]
            darkest, brightest = (_number(value, candela) for value in self.display[8:])
            points = f"G({x[2]},{x[3]})B({x[4]},{x[5]})R({x[0]},{x[1]})WP({x[6]},{x[7]})"
            parts.append(f"{display}={points}L({brightest},{darkest})")
        if self.light is not None:
            parts.append(f"{light}={self.light[0]},{self.light[1]}")
        return {option: ":".join(parts)} if parts else {}


def _element(number: str, *content: bytes | int | Fraction) -> bytes:
    """Returns an element of EBML (RFC 8794) with a number in hexadecimal: whole numbers, fractions, bytes, elements."""
    parts = [
        part if isinstance(part, bytes) else struct.pack(">Q" if isinstance(part, int) else ">d", part)
        for part in content
    ]
    data = b"".join(parts)
    return bytes.fromhex(number) + (len(data) | 1 << 56).to_bytes(8, "big") + data


def _number(value: Fraction, unit: int) -> str:
    """Returns a value in whole units; as a decimal number if the unit is 1."""
    return f"{float(value):.5g}" if unit == 1 else str(round(value * unit))


def view_marks(picture: av.VideoFrame) -> tuple[str, ...]:
    """Returns the names of the marks by which a player shows a picture correctly: two views in one, or a sphere."""
    return tuple(name for kind, name in VIEWS.items() if side_data(picture, kind))


def display_matrix(picture: av.VideoFrame) -> tuple[int, ...] | None:
    """Returns the nine numbers of the rotation that the container states for players."""
    matrix = side_data(picture, "DISPLAYMATRIX")
    return tuple(np.frombuffer(matrix, np.int32).tolist()) if matrix else None


def side_data(picture: av.VideoFrame, kind: str) -> bytes:
    """Returns the side data of a picture of one kind; empty if it has none."""
    try:
        data: Any = picture.side_data.get(kind)
    except ValueError:  # raised by PyAV if a kind of side data is newer than its list
        return b""
    return b"" if data is None else np.frombuffer(memoryview(data), np.uint8).tobytes()
