"""Frames as video codecs leave them: blocks, blur, and stillness where little moves; other ones every time."""

from collections.abc import Sequence
from typing import Any

import av
import numpy as np

from data.textures import Picture

# H.263 is what video on the web was in at first, MPEG-4 part 2 what action-recognition sets are in. Not H.264: three
# in a hundred encodings by x264 come out differently the next time, and samples have to be reproducible.
CODERS = "flv", "mpeg4"
QUANTISERS = 2, 9  # from hardly seen to bad
TWICE = 0.3  # share of videos that were coded before
BETWEEN = {"mpeg4": 2}  # frames coded from both sides at most, in half of those that can


def recode(rng: np.random.Generator, frames: Sequence[Picture]) -> list[Picture]:
    """Consecutive frames (H,W,3) uint8 RGB, H and W even, after one random codec, or two, at a random quality."""
    coded = list(frames)
    for _ in range(1 + (rng.random() < TWICE)):
        name = str(rng.choice(CODERS))
        between = BETWEEN.get(name, 0) if rng.random() < 0.5 else 0
        coded = _through(coded, name, int(rng.integers(QUANTISERS[0], QUANTISERS[1] + 1)), between)
    return coded


def _through(frames: Sequence[Picture], name: str, quantiser: int, between: int) -> list[Picture]:
    encoder: Any = av.CodecContext.create(name, "w")
    encoder.height, encoder.width = frames[0].shape[:2]
    encoder.pix_fmt, encoder.framerate, encoder.thread_count = "yuv420p", 25, 1
    encoder.options = {"qmin": str(quantiser), "qmax": str(quantiser), "bf": str(between)}
    packets = [p for frame in frames for p in encoder.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame)))]
    packets += encoder.encode(None)
    decoder: Any = av.CodecContext.create(name, "r")
    decoder.extradata, decoder.thread_count = encoder.extradata, 1
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return [frame.to_ndarray(format="rgb24") for frame in decoded]
