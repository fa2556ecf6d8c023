"""Writes optical flow as .flo files of the Middlebury format and as pictures in the Middlebury colours."""

import struct
from pathlib import Path

import numpy as np

from model.inference.end_flow import EndFlow
from video.pictures.picture import write_picture
from video.safe_file import write_file

FLO_TAG = 202021.25  # the float32 whose bytes read "PIEH"
# Colour wheel of Baker et al., A Database and Evaluation Methodology for Optical Flow, 2011: steps between colours.
WHEEL = (("R", "Y", 15), ("Y", "G", 6), ("G", "C", 4), ("C", "B", 11), ("B", "M", 13), ("M", "R", 6))
PURE = {"R": (1, 0, 0), "Y": (1, 1, 0), "G": (0, 1, 0), "C": (0, 1, 1), "B": (0, 0, 1), "M": (1, 0, 1)}


def write_flows(folder: Path, ends: EndFlow) -> None:
    """Writes the flow of one pair in both directions.

    Per direction: flow01.flo, flow01.png in colours (one scale for both), and flow01_consistent.png, 255 where the flow
    is reliable, else 0. 01 is from the first picture to the second.
    """
    directions = {"01": (ends.forward, ends.forward_consistent), "10": (ends.backward, ends.backward_consistent)}
    largest = max(float(flow[0].norm(dim=0).max()) for flow, _ in directions.values())
    for name, (tensor, consistent) in directions.items():
        flow = tensor[0].permute(1, 2, 0).cpu().numpy()  # (H,W,2)
        write_flo(folder / f"flow{name}.flo", flow)
        write_picture(folder / f"flow{name}.png", flow_picture(flow, largest))
        mask = consistent[0, 0].cpu().numpy().astype(np.uint8) * 255  # (H,W)
        write_picture(folder / f"flow{name}_consistent.png", mask[..., None])


def write_flo(path: Path, flow: np.ndarray) -> None:
    """Writes (H,W,2) px, x right, y down, as a .flo file."""
    height, width, _ = flow.shape
    data = struct.pack("<fii", FLO_TAG, width, height) + flow.astype("<f4").tobytes()
    write_file(path, data)


def flow_picture(flow: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Converts flow (H,W,2) px to a picture (H,W,3) uint8: direction as hue, length as saturation.

    No motion is white, right is red, down is yellow-green. `largest` is the length shown at full saturation, by default
    that of the longest flow vector.
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
    """Returns the colours (55,3) in 0..1, from red through yellow, green, cyan, blue and magenta back to red."""
    arcs = []
    for start, end, steps in WHEEL:
        along = np.arange(steps)[:, None] / steps
        arcs.append(np.array(PURE[start]) * (1 - along) + np.array(PURE[end]) * along)
    return np.concatenate(arcs)
