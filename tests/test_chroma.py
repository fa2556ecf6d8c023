"""Tests that made frames have their chroma at the places of the source's chroma, for every siting."""

import io

import av
import numpy as np
import pytest

from video.frame import Colour


@pytest.mark.parametrize("siting", ["jpeg", "mpeg2", "paldv"])
def test_chroma_does_not_move_on_the_way_to_rgb_and_back(siting: str) -> None:
    width, height = 64, 48
    ramp = np.tile(np.linspace(60, 190, width // 2).round().astype(np.uint8), (height // 2, 1))
    planes = np.full((height, width), 128, np.uint8).tobytes() + ramp.tobytes() + ramp[:, ::-1].tobytes()
    header = f"YUV4MPEG2 W{width} H{height} F24:1 Ip A1:1 C420{siting}\n".encode()
    frame = next(av.open(io.BytesIO(header + 2 * (b"FRAME\n" + planes)), "r").decode(video=0))
    colour = Colour.of(frame)
    back = colour.from_rgb(colour.to_rgb(frame), "yuv420p")
    for before, after in [(frame.planes[i], back.planes[i]) for i in range(3)]:
        a, b = (
            np.frombuffer(memoryview(p), np.uint8).reshape(p.height, -1)[:, 2 : p.width - 2] for p in (before, after)
        )
        assert np.abs(a.astype(int) - b).max() <= 1  # a quarter of a sample is 1, half a luma sample 2 and more
