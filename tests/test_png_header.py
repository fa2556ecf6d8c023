"""Folders of PNG files of several kinds, compared before a run."""

from pathlib import Path

import numpy as np
import pytest

from video.picture import MediaError, write_picture
from video.png_header import check_sizes, describe_gaps
from video.reader import open_frames


def test_alpha_and_depth_are_added_where_some_pictures_have_them(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png", np.full((4, 6, 3), 255, np.uint8))
    write_picture(tmp_path / "2.png", np.full((4, 6, 4), 65535, np.uint16))
    write_picture(tmp_path / "3.png", np.full((4, 6, 1), 255, np.uint8))
    source = open_frames(tmp_path)
    frames = [frame.rgb() for frame in source]
    assert source.pix_fmt == "rgba64le"
    assert all(rgb.shape == (4, 6, 4) and rgb.dtype == np.uint16 and rgb.min() == 65535 for rgb in frames)


def test_another_size_is_found_before_the_first_frame(tmp_path: Path) -> None:
    for i in range(4):
        write_picture(tmp_path / f"{i}.png", np.zeros((4, 6 + i // 3, 3), np.uint8))
    with pytest.raises(MediaError, match=r"3\.png: 7x4, the first 6x4; bring them to one size"):
        open_frames(tmp_path)


def test_missing_numbers_are_named() -> None:
    assert "4 numbers are missing, the first after 3" in describe_gaps([Path(f"{n}.png") for n in (1, 2, 3, 7, 9)])[0]
    assert describe_gaps([Path(f"{n}.png") for n in (10, 20, 30)]) == []
    assert check_sizes([]) == (3, False)
