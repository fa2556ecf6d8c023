"""Optical flow as files: Middlebury's .flo, and pictures in Middlebury's colours."""

import struct
from pathlib import Path

import numpy as np

from video.picture import MediaError
from video.safe_file import write_file

FLO_TAG = 202021.25  # the float32 whose bytes read "PIEH"
# The wheel of Baker et al. (A Database and Evaluation Methodology for Optical Flow, 2011): steps from colour to colour.
WHEEL = (("R", "Y", 15), ("Y", "G", 6), ("G", "C", 4), ("C", "B", 11), ("B", "M", 13), ("M", "R", 6))
PURE = {"R": (1, 0, 0), "Y": (1, 1, 0), "G": (0, 1, 0), "C": (0, 1, 1), "B": (0, 0, 1), "M": (1, 0, 1)}


def write_flo(path: Path, flow: np.ndarray) -> None:
    """Writes (H,W,2) px, x right, y down, as a .flo file."""
    height, width, _ = flow.shape
    data = struct.pack("<fii", FLO_TAG, width, height) + flow.astype("<f4").tobytes()
    write_file(path, data)


def read_flo(path: Path) -> np.ndarray:
    """(H,W,2) float32 px of a .flo file; MediaError if it is none or cut off."""
    data = path.read_bytes()
    if len(data) < 12 or struct.unpack("<f", data[:4])[0] != FLO_TAG:
        raise MediaError(f"{path}: not a .flo file; give one that --flow or another tool wrote")
    width, height = struct.unpack("<ii", data[4:12])
    if len(data) != 12 + width * height * 8:
        raise MediaError(f"{path}: cut off; write it again")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2)


def flow_picture(flow: np.ndarray, largest: float | None = None) -> np.ndarray:
    """(H,W,2) px -> (H,W,3) uint8: direction as hue (right is red, down yellow-green), length as saturation.

    Still is white; `largest` is the length of full colour, that of the longest flow if not given.
    """
    length = np.hypot(flow[..., 0], flow[..., 1])
    top = max(float(length.max()) if largest is None else largest, 1e-6)
    radius = length / top
    colours = _wheel()
    angle = np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi  # -1..1
    position = (angle + 1) / 2 * (len(colours) - 1)
    before = np.floor(position).astype(int)
    part = (position - before)[..., None]
    hue = colours[before] * (1 - part) + colours[(before + 1) % len(colours)] * part
    inside = 1 - np.minimum(radius, 1)[..., None] * (1 - hue)
    colour = np.where((radius <= 1)[..., None], inside, hue * 0.75)  # beyond full colour: darker
    return np.floor(colour * 255).astype(np.uint8)


def _wheel() -> np.ndarray:
    """(55,3) in 0..1, from red through yellow, green, cyan, blue and magenta back to red."""
    arcs = []
    for start, end, steps in WHEEL:
        along = np.arange(steps)[:, None] / steps
        arcs.append(np.array(PURE[start]) * (1 - along) + np.array(PURE[end]) * along)
    return np.concatenate(arcs)
