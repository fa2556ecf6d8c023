"""Renders exact camera pans over photos, with objects in front: large motion with its true middle frame and flow."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from data.sample import TrainingSample, augment
from data.synthetic import Layer, Motion, render_sample
from data.textures import RgbPicture, draw_texture

MIDDLE_SHARE = 0.7  # share of samples at t = 1/2; the others at EARLIEST to 1 - EARLIEST
EARLIEST = 0.1
OBJECTS_SHARE, OBJECTS = 0.5, 3  # share of samples with objects in front of the photo, and the largest number of them
OBJECT_SIZE = 0.7  # largest size of an object relative to the crop
OBJECT_SPEED = 160.0  # px from img0 to img1 at most
CARRIED, OWN = 0.5, 0.4  # share of objects that move with the camera, and the part of their own speed that they keep
LEVEL_SHARE, LEVEL = 0.3, 0.1  # share of motions that are nearly horizontal, and the factor on their vertical part
TURN_SHARE, TURN, GROWTH = 0.6, 3.0, 0.06  # share that rotates, and that zooms; deviations in degrees and of log(zoom)
TILT_SHARE, TILT = 0.5, 8.0  # share of photos that are shown rotated, and the deviation in degrees
PHOTO_ZOOM = 0.5, 1.4  # factor on the size of a photo
REDUCED = 0.85  # photos shown smaller than this are reduced by areas first
MARGIN = 16  # the flow within size / MARGIN px of the border of a crop does not count


class Pans:
    """Draws camera pans over photos, by `motion` (least, largest) px from img0 to img1, uniform in its logarithm.

    Unlike in scenes, the flow counts as known also where img0 or img1 does not show a point: networks learn to continue
    a motion beyond the border.
    """

    def __init__(
        self, photos: Sequence[RgbPicture], size: int, motion: tuple[float, float], length: int = 100_000
    ) -> None:
        self.photos, self.size, self.motion, self.length = photos, size, motion, length

    def __len__(self) -> int:
        return self.length

    def sample(self, rng: np.random.Generator, index: int) -> TrainingSample:
        """Returns a random sample; `index` is not used."""
        timestep = 0.5 if rng.random() < MIDDLE_SHARE else float(rng.uniform(EARLIEST, 1 - EARLIEST))
        made = render_sample(rng, draw_pan(rng, self.size, self.photos, self.motion), timestep, self.size)
        made["known"].zero_()
        edge = self.size // MARGIN
        made["known"][:, edge : self.size - edge, edge : self.size - edge] = 1
        return augment(rng, made)


def draw_pan(
    rng: np.random.Generator, size: int, photos: Sequence[RgbPicture], motion: tuple[float, float]
) -> list[Layer]:
    """Returns a photo as the background, and at times objects in front of it, in motion on a canvas of `size` px."""
    photo, zoom = _pick(rng, size, photos)
    place = np.full(2, size / 2)
    extent = np.array(photo.shape[1::-1], np.float64)
    reach = np.minimum(place / zoom, extent / 2)
    camera = _draw_motion(rng, _draw_speed(rng, *motion))
    layers = [Layer(photo, Motion(rng.uniform(reach, extent - reach), place, zoom=zoom, **camera), endless=True)]
    for _ in range(int(rng.integers(1, OBJECTS + 1)) if rng.random() < OBJECTS_SHARE else 0):
        texture = draw_texture(rng, int(OBJECT_SIZE * size), photos, graphic=False)
        own = _draw_motion(rng, _draw_speed(rng, motion[0], max(min(motion[1], OBJECT_SPEED), motion[0])))
        if rng.random() < CARRIED:
            own["travel"] = OWN * own["travel"] + camera["travel"]
        middle, start = np.array(texture.shape[1::-1]) / 2, rng.uniform(0.15 * size, 0.85 * size, 2)
        layers.append(Layer(texture, Motion(middle, start, **own)))
    return layers


def _pick(rng: np.random.Generator, size: int, photos: Sequence[RgbPicture]) -> tuple[RgbPicture, float]:
    """Returns a random photo and the zoom at which it is shown; it covers nine tenths of the crop or more."""
    photo = photos[int(rng.integers(len(photos)))]
    least = min(0.9 * size / min(photo.shape[:2]), PHOTO_ZOOM[1])
    zoom = max(float(np.exp(rng.uniform(*np.log(PHOTO_ZOOM)))), least)
    if zoom < REDUCED:
        return cv2.resize(photo, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), 1.0
    return photo, zoom


def _draw_speed(rng: np.random.Generator, least: float, most: float) -> float:
    """Returns a random speed in px from time 0 to 1, uniform in its logarithm."""
    return float(np.exp(rng.uniform(np.log(least), np.log(most))))


def _draw_motion(rng: np.random.Generator, speed: float) -> dict[str, Any]:
    """Returns the arguments of a Motion by `speed` px in a random direction, at times with rotation and zoom."""
    direction = rng.uniform(0, 2 * np.pi)
    travel = speed * np.array([np.cos(direction), np.sin(direction)])
    if rng.random() < LEVEL_SHARE:
        travel[1] *= LEVEL
    spin = np.radians(rng.normal(0, TURN)) if rng.random() < TURN_SHARE else 0.0
    growth = rng.normal(0, GROWTH) if rng.random() < TURN_SHARE else 0.0
    angle = np.radians(rng.normal(0, TILT)) if rng.random() < TILT_SHARE else 0.0
    return {"travel": travel, "spin": spin, "growth": growth, "angle": angle}
