"""A folder of pictures as the frames of a video: their order, size, channels and depth."""

from pathlib import Path

import numpy as np

from video.picture import MediaError, list_pictures, read_picture, with_channels
from video.png_header import check_sizes, describe_gaps


class PictureFolder:
    """Reads the pictures of a folder in natural order, all with the same size, channels and depth.

    Raises MediaError if there are fewer than two, or if PNG files have several sizes.
    """

    def __init__(self, path: Path) -> None:
        self.paths = list_pictures(path)
        if len(self.paths) < 2:
            raise MediaError(f"{path}: {len(self.paths)} pictures; interpolation needs two or more in the folder")
        channels, deep = check_sizes(self.paths)
        first = read_picture(self.paths[0])
        self.size = first.shape[1], first.shape[0]  # width, height
        self.notes = describe_gaps(self.paths)
        self._channels = max(channels, first.shape[2], 3)
        self._dtype = np.dtype(np.uint16) if deep and first.dtype == np.uint8 else first.dtype

    @property
    def pix_fmt(self) -> str:
        """The pixel format of FFmpeg that holds every picture; that of floats does not exist."""
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
