"""Compresses frames by random video codecs: blocks, blur, and no motion where little moves."""

from collections.abc import Sequence
from typing import Any

import av
import numpy as np

from data.textures import RgbPicture

# H.263 was the first codec of the web, MPEG-4 part 2 is that of action-recognition sets. Not H.264: three in a hundred
# encodings by x264 differ from one time to the next, and samples have to be reproducible.
CODERS = "flv", "mpeg4"
QUANTISERS = 2, 9  # from hardly visible damage to bad pictures
TWICE = 0.3  # share of samples that are coded twice
BETWEEN = {"mpeg4": 2}  # B-frames in a row at most; used in half of the encodings by a codec that has them


def recode(rng: np.random.Generator, frames: Sequence[RgbPicture]) -> list[RgbPicture]:
    """Returns consecutive frames (H,W,3) uint8 RGB, H and W even, after one or two random codecs."""
    coded = list(frames)
    for _ in range(1 + (rng.random() < TWICE)):
        name = str(rng.choice(CODERS))
        between = BETWEEN.get(name, 0) if rng.random() < 0.5 else 0
        coded = _through(coded, name, int(rng.integers(QUANTISERS[0], QUANTISERS[1] + 1)), between)
    return coded


def _through(frames: Sequence[RgbPicture], name: str, quantiser: int, between: int) -> list[RgbPicture]:
    """Encodes and decodes the frames by one codec."""
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
