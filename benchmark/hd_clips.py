"""Reads the eleven clips of both HD benchmarks, and defines their padding."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

from benchmark.test_set import Padding, Sample
from benchmark.yuv import read_yuv420, to_rgb

CLIPS = {  # file: width and height
    "HD720p_GT/parkrun_1280x720_50.yuv": (1280, 720),
    "HD720p_GT/shields_1280x720_60.yuv": (1280, 720),
    "HD720p_GT/stockholm_1280x720_60.yuv": (1280, 720),
    "HD1080p_GT/BlueSky.yuv": (1920, 1080),
    "HD1080p_GT/Kimono1_1920x1080_24.yuv": (1920, 1080),
    "HD1080p_GT/ParkScene_1920x1080_24.yuv": (1920, 1080),
    "HD1080p_GT/sunflower_1080p25.yuv": (1920, 1080),
    "HD544p_GT/Sintel_Alley2_1280x544.yuv": (1280, 544),
    "HD544p_GT/Sintel_Market5_1280x544.yuv": (1280, 544),
    "HD544p_GT/Sintel_Temple1_1280x544.yuv": (1280, 544),
    "HD544p_GT/Sintel_Temple2_1280x544.yuv": (1280, 544),
}
NAMES = tuple(CLIPS)
FRAMES = 101  # of each clip, from its start
# upstream repeats 24, 4 and 16 rows above and below 720, 1080 and 544: the next multiple of 64 each time
PADDING = Padding(64, "replicate", centred=True)
# The published figures were made when chroma was enlarged by SciPy's nearest; upstream's script today is bicubic.
CHROMA = "nearest"
DOWNLOAD = "HD_dataset (the HD clips of MEMC-Net, linked from the README of the RIFE repository)"


def samples_of_clips(root: Path, *, step: int, grouped: bool = False) -> Iterator[Sample]:
    """Yields pairs that are `step` frames apart with all frames between; one group for each height if `grouped`."""
    for name, (width, height) in CLIPS.items():
        with (root / name).open("rb") as stream:
            window = []  # from one kept frame to the next
            for index, yuv in enumerate(islice(read_yuv420(stream, width, height, chroma=CHROMA), FRAMES)):
                window.append(to_rgb(yuv))
                if len(window) == step + 1:
                    targets = {Fraction(i, step): window[i] for i in range(1, step)}
                    title = f"{Path(name).stem} {index - step}"
                    yield Sample(title, (window[0], window[-1]), targets, f"{height}p" if grouped else "", name)
                    window = window[-1:]
