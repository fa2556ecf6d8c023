"""Reads a folder of pictures as frames of a video: in order, of one size, with channels, depth and colour profile."""

from pathlib import Path

import numpy as np

from video.pictures.picture import MediaError, list_pictures, read_picture, with_channels
from video.pictures.picture_header import check_sizes, describe_colours, describe_gaps, read_header


class PictureFolder:
    """Reads the pictures of a folder in natural order, all with the same size, channels and depth.

    Raises MediaError if there are fewer than two, or if the headers of the files have several sizes.
    """

    def __init__(self, path: Path) -> None:
        self.paths = list_pictures(path)
        if len(self.paths) < 2:
            raise MediaError(f"{path}: {len(self.paths)} pictures; interpolation needs two or more in the folder")
        headers = {file: header for file in self.paths if (header := read_header(file)) is not None}
        check_sizes(headers)
        first = read_picture(self.paths[0])
        self.size = first.shape[1], first.shape[0]  # width, height
        self.notes = [*describe_gaps(self.paths), *describe_colours(headers)]
        self.colour = headers[self.paths[0]].colour if self.paths[0] in headers else b""  # chunks of PNG
        self._channels = max(4 if any(header.has_alpha for header in headers.values()) else 3, first.shape[2])
        deep = any(header.deep for header in headers.values())
        self._dtype = np.dtype(np.uint16) if deep and first.dtype == np.uint8 else first.dtype

    @property
    def has_profile(self) -> bool:
        """Returns whether the pictures have a colour profile other than the marks of sRGB."""
        return b"iCCP" in self.colour or b"cICP" in self.colour

    @property
    def pix_fmt(self) -> str:
        """Returns the pixel format of FFmpeg that holds every picture; there is none for floats."""
        deep = self._dtype != np.uint8
        return ("rgba64le" if deep else "rgba") if self._channels == 4 else "rgb48le" if deep else "rgb24"

    def read(self, index: int) -> np.ndarray:
        """Returns a picture (H,W,3 or 4); alpha and 16 bits are added to those without.

        Raises MediaError if it has another size, more channels or a greater depth than the folder was found to have.
        """
        path = self.paths[index]
        picture = read_picture(path)
        size = picture.shape[1], picture.shape[0]
        if size != self.size:
            found, others = (f"{width}x{height}" for width, height in (size, self.size))
            raise MediaError(f"{path}: {found}, the pictures before it {others}; bring them to one size")
        if picture.dtype == np.uint8 and self._dtype == np.uint16:
            picture = picture.astype(np.uint16) * 257
        if picture.shape[2] > self._channels or picture.dtype != self._dtype:
            found, others = (
                f"{n} channels of {kind}"
                for n, kind in ((picture.shape[2], picture.dtype), (self._channels, self._dtype))
            )
            raise MediaError(f"{path}: has {found}, the pictures before it {others}; bring them to one format")
        return with_channels(picture, self._channels)
