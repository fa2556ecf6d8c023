"""Blurs motion as a camera's shutter: by the mean of frames made while the shutter is open."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import groupby

import numpy as np

from video.frame import Frame

SHUTTER_SAMPLES = 8  # frames that are averaged
FULL_TURN = 360  # degrees


def shutter_offsets(angle: Fraction, rate: Fraction) -> list[Fraction]:
    """Returns the seconds after the time of an output frame at which a shutter of that angle takes its samples."""
    return [Fraction(k, SHUTTER_SAMPLES) * angle / FULL_TURN / rate for k in range(SHUTTER_SAMPLES)]


def average_samples(frames: Iterable[Frame], rate: Fraction, start: Fraction = Fraction(0)) -> Iterator[Frame]:
    """Yields a frame for each time start + n/rate: the mean of the samples from then to before the next such time.

    Samples that are all one picture stay that picture.
    """
    for number, group in groupby(frames, lambda frame: math.floor((frame.time - start) * rate)):
        samples = list(group)
        first = samples[0]
        if (first.time - start) * rate != number:
            continue  # samples before the first frame
        if any(frame.picture is not first.picture for frame in samples):
            total = sum(frame.rgb().astype(np.float32) for frame in samples)
            picture = np.rint(total / len(samples)).astype(first.rgb().dtype)
            first = Frame(picture, first.time, first.colour, made=True)
        yield first
