"""Renders synthetic scenes: textured layers in motion, at times 0, t and 1, with exact flows from t to both ends.

A layer is a texture with transparency, and an invertible map from texture to canvas at any time. So the place of a
pixel of the middle frame in the other frames has a closed form; nothing is estimated. Optical-flow networks learn well
from such 2D compositions (AutoFlow, arXiv 2104.14544; SVD layers, arXiv 2308.07378).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from data.recode import recode
from data.sample import TrainingSample, find_one_sided, pack
from data.textures import RgbPicture, compress, draw_background, draw_texture

LARGE_SHARE = 0.2  # share of scenes that move by a twelfth to a third of their width from img0 to img1
TINY_SHARE = 0.1  # share that moves by 1 px at most, as most of a compressed video at rest does
STATIC_SHARE = 0.03  # share that does not move
END_SHARE = 0.04  # share with t = 0 or 1, where the flow to one end is 0
FINE_SHARE = 0.4  # share drawn at twice the size and reduced, since pixels of a camera average over their area
OWNED = 128  # of 255: a pixel belongs to the uppermost layer that covers it by at least this much
PARTLY = 13, 242  # of 255: between these, a pixel shows both a layer and what is behind it
REACH = 3  # px: how far beyond its border a texture shows, interpolated by cubics

Points = tuple[np.ndarray, np.ndarray]  # x and y in px, of shapes that broadcast, such as (1,W) and (H,1)
Region = tuple[slice, slice]  # rows and columns of the canvas


@dataclass(frozen=True)
class Wave:
    """Distorts smoothly by two shears, each invertible in closed form: x += f(y), then y += g(x)."""

    size: np.ndarray  # (2,) px at progress 0, of the shear of x and of y
    growth: np.ndarray  # (2,) px over the whole interval
    number: np.ndarray  # (2,) radians per px
    phase: np.ndarray  # (2,) radians

    def shift(self, axis: int, along: np.ndarray, progress: float) -> np.ndarray:
        """Returns the shift of coordinate `axis` in px where the other coordinate is `along`."""
        height = np.float32(self.size[axis] + self.growth[axis] * progress)
        return height * np.sin(np.float32(self.number[axis]) * along + np.float32(self.phase[axis]))


@dataclass(frozen=True)
class Motion:
    """Maps a texture to the canvas at any time: first the wave, then tilt, zoom, turn and shift."""

    pivot: np.ndarray  # (2,) px of the texture, the centre of rotation and zoom
    place: np.ndarray  # (2,) px of the canvas where the pivot is in the middle
    travel: np.ndarray  # (2,) px from time 0 to 1
    angle: float = 0.0  # radians
    spin: float = 0.0  # radians from time 0 to 1
    zoom: float = 1.0
    growth: float = 0.0  # of log(zoom)
    tilt: np.ndarray | None = None  # (2,) 1/px, perspective at rest
    swing: np.ndarray | None = None  # (2,) 1/px from time 0 to 1
    bend: float = 0.0  # acceleration: at half time the position is this share of the travel beyond the middle
    wave: Wave | None = None
    camera: "Motion | None" = None  # moves the canvas

    def progress(self, time: float) -> float:
        """Returns how far the motion is: -1/2 at time 0, 1/2 at time 1."""
        return time - 0.5 + 4 * self.bend * time * (1 - time)

    def matrix(self, time: float) -> np.ndarray:
        """Returns the homography (3,3) from the texture after its wave to the canvas."""
        at = self.progress(time)
        zoom = self.zoom * np.exp(self.growth * at)
        cos, sin = np.cos(self.angle + self.spin * at) * zoom, np.sin(self.angle + self.spin * at) * zoom
        x, y = self.place + self.travel * at
        tilt = np.zeros(2) if self.tilt is None or self.swing is None else self.tilt + self.swing * at
        turned = np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]])
        tilted = np.array([[1, 0, 0], [0, 1, 0], [*tilt, 1]])
        centred = np.array([[1, 0, -self.pivot[0]], [0, 1, -self.pivot[1]], [0, 0, 1]])
        matrix = turned @ tilted @ centred
        return matrix if self.camera is None else self.camera.matrix(time) @ matrix

    def to_canvas(self, points: Points, time: float) -> Points:
        """Returns the canvas points of texture points."""
        x, y = points
        if self.wave is not None:
            at = self.progress(time)
            x = x + self.wave.shift(0, y, at)
            y = y + self.wave.shift(1, x, at)
        return _project(self.matrix(time), x, y)

    def to_texture(self, points: Points, time: float) -> Points:
        """Returns the texture points of canvas points: the inverse of to_canvas."""
        x, y = _project(np.linalg.inv(self.matrix(time)), *points)
        if self.wave is not None:
            at = self.progress(time)
            y = y - self.wave.shift(1, x, at)
            x = x - self.wave.shift(0, y, at)
        return x, y


def _project(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> Points:
    m = matrix.astype(np.float32)
    w = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    return (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / w, (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / w


@dataclass(frozen=True)
class Layer:
    """Draws a texture (h,w,4) uint8, colour multiplied by opacity and opacity, in motion.

    An endless layer, the background, is opaque and mirrored beyond its border; its texture is colour only, (h,w,3).
    """

    texture: np.ndarray
    motion: Motion
    endless: bool = False

    def box(self, time: float, size: int) -> Region:
        """Returns the rows and columns of the canvas that the layer covers at a time."""
        if self.endless:
            return slice(0, size), slice(0, size)
        wave, at = self.motion.wave, self.motion.progress(time)
        margin = REACH + (np.zeros(2) if wave is None else np.abs(wave.size + wave.growth * at))
        (left, top), (right, bottom) = -margin, self.texture.shape[1::-1] + margin
        x, y, w = self.motion.matrix(time) @ [[left, right, left, right], [top, top, bottom, bottom], [1, 1, 1, 1]]
        if w.min() <= 0:  # a corner behind the viewer
            return slice(0, size), slice(0, size)
        rows, columns = (slice(max(int(v.min()), 0), max(min(int(v.max()) + 2, size), 0)) for v in (y / w, x / w))
        return rows, columns

    def draw(self, time: float, box: Region) -> np.ndarray:
        """Draws a part of the canvas, uint8, with the channels of the texture."""
        rows, columns = box
        border = cv2.BORDER_REFLECT if self.endless else cv2.BORDER_CONSTANT
        if self.motion.wave is None:  # cubic: bilinear would blur each frame by its own sub-pixel phase
            shift = np.array([[1, 0, -columns.start], [0, 1, -rows.start], [0, 0, 1]])
            size = columns.stop - columns.start, rows.stop - rows.start
            matrix = shift @ self.motion.matrix(time)
            if matrix[2, 0] == matrix[2, 1] == 0:  # no perspective: faster
                affine = matrix[:2] / matrix[2, 2]
                return cv2.warpAffine(self.texture, affine, size, flags=cv2.INTER_CUBIC, borderMode=border)
            return cv2.warpPerspective(self.texture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=border)
        return cv2.remap(self.texture, *self.motion.to_texture(grid(box), time), cv2.INTER_CUBIC, borderMode=border)


def grid(box: Region) -> Points:
    """Returns the coordinates of a part of the canvas, x (1,w) and y (h,1)."""
    y, x = (np.arange(part.start, part.stop, dtype=np.float32) for part in box)
    return x[None], y[:, None]


def render(layers: Sequence[Layer], time: float, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders (size,size,3) float32 0..255; also returns the layer of each pixel, and where only it is visible."""
    background = layers[0].draw(time, layers[0].box(time, size))
    picture = [plane.astype(np.float32) for plane in cv2.split(background)[:3]]
    owner = np.zeros((size, size), np.int8)
    pure = np.ones((size, size), bool)
    for i, layer in enumerate(layers[1:], 1):
        box = layer.box(time, size)
        if not owner[box].size:
            continue
        *colours, opacity = cv2.split(layer.draw(time, box))
        through = 1 - opacity * np.float32(1 / 255)
        for plane, colour in zip(picture, colours, strict=True):
            plane[box] *= through
            plane[box] += colour
        owned = opacity >= OWNED
        owner[box][owned] = i
        pure[box] |= owned
        pure[box] &= (opacity < PARTLY[0]) | (opacity > PARTLY[1])
    return cv2.merge(picture), owner, pure


def exact_flow(layers: Sequence[Layer], owner: np.ndarray, time: float, *ends: float) -> np.ndarray:
    """Returns the flow in px from `time` to each end, (2*ends,H,W), of the point that each pixel shows at `time`."""
    size = owner.shape[0]
    flow = np.zeros((len(ends), 2, size, size), np.float32)
    for i, layer in enumerate(layers):
        box = layer.box(time, size)
        owned = owner[box] == i
        if not owned.any():
            continue
        pixels = grid(box)
        points = layer.motion.to_texture(pixels, time)
        for planes, end in zip(flow, ends, strict=True):
            for plane, stop, start in zip(planes, layer.motion.to_canvas(points, end), pixels, strict=True):
                np.subtract(stop, start, out=plane[box], where=owned)
    return flow.reshape(-1, size, size)


def visibility(owner: np.ndarray, owner_end: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Returns (H,W) bool: whether the end frame shows the point of a pixel in all four pixels around its position."""
    size = owner.shape[0]
    x, y = (start + along for start, along in zip(grid((slice(0, size), slice(0, size))), flow, strict=True))
    inside = (x >= 0) & (y >= 0) & (x <= size - 1) & (y <= size - 1)
    x0, y0 = (np.clip(v, 0, size - 2).astype(np.intp) for v in (x, y))
    around = [owner_end[dy : size - 1 + dy, dx : size - 1 + dx] for dy in (0, 1) for dx in (0, 1)]
    alike = np.where(np.logical_and.reduce([one == around[0] for one in around[1:]]), around[0], -1)
    return np.asarray(inside & (alike[y0, x0] == owner))


def scene(rng: np.random.Generator, size: int, textures: Sequence[RgbPicture]) -> TrainingSample:
    """Returns a training sample of `size` px: random layers in random motion, with exact flows."""
    fine = 2 if rng.random() < FINE_SHARE else 1
    layers = draw_layers(rng, fine * size, textures)
    timestep = float(rng.choice([0.0, 1.0])) if rng.random() < END_SHARE else float(rng.choice([0.5, rng.uniform()]))
    return render_sample(rng, layers, timestep, size, fine)


def render_sample(
    rng: np.random.Generator, layers: Sequence[Layer], timestep: float, size: int, fine: int = 1
) -> TrainingSample:
    """Renders layers at times 0, `timestep` and 1 to a sample, with random effects of a camera and a codec.

    The flow is known where the end shows the point of a pixel, and where no two layers are blended. With `fine` 2 the
    layers are drawn on a canvas of twice the size, which is then reduced.
    """
    times = (0.0, timestep, 1.0)
    rendered = [render(layers, time, fine * size) for time in times]
    (_, owner0, _), (_, owner, pure), (_, owner1, _) = rendered
    flow = exact_flow(layers, owner, timestep, 0.0, 1.0)
    visible = np.stack((visibility(owner, owner0, flow[:2]), visibility(owner, owner1, flow[2:])))
    pictures = [picture for picture, _, _ in rendered]
    if fine == 2:
        pictures = [np.asarray(cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA)) for p in pictures]
        owners = pixel_quads(owner)
        pure = np.all(pixel_quads(pure), 0) & np.all(owners == owners[0], 0)
        visible = np.stack([np.all(pixel_quads(plane), 0) for plane in visible])
        flow = np.stack([pixel_quads(plane).mean(0) / 2 for plane in flow])
    frames = add_effects(rng, pictures, times)
    return pack(frames, timestep, flow=flow, known=visible & pure, one_sided=find_one_sided(visible & pure))


def pixel_quads(plane: np.ndarray) -> np.ndarray:
    """Returns the four pixels that each pixel of half the size is made of: (2H,2W) -> (4,H,W)."""
    return np.stack([plane[dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)])


def draw_layers(rng: np.random.Generator, size: int, textures: Sequence[RgbPicture]) -> list[Layer]:
    """Returns a random background and one to six objects in front of it, all moved by one camera."""
    kind = rng.random()
    if kind < STATIC_SHARE:
        fastest = 0.0
    elif kind < STATIC_SHARE + TINY_SHARE:
        fastest = rng.uniform(0.1, 1.0)
    elif kind < STATIC_SHARE + TINY_SHARE + LARGE_SHARE:
        fastest = rng.uniform(0.08, 0.35) * size
    else:
        fastest = np.exp(rng.uniform(np.log(1.5), np.log(36.0)))  # px, the scale of speeds in this scene
    still = rng.random() < 0.25  # the camera does not move
    camera = draw_motion(rng, size, 0.0 if still else fastest * rng.uniform(0.1, 0.8))
    camera = replace(camera, angle=0.0, zoom=1.0, wave=None)
    graphic = rng.random() < 0.15  # flat colours, as in cartoons and on screens
    layers = []
    for i in range(1 + rng.integers(1, 7)):
        texture = draw_texture(rng, size, textures, graphic) if i else draw_background(rng, size, textures, graphic)
        motion = draw_motion(rng, size, fastest * (0.2 if i == 0 else rng.uniform(0.1, 1)))
        middle = np.array(texture.shape[1::-1]) / 2
        place = np.full(2, size / 2) if i == 0 else rng.uniform(0, size, 2)
        layers.append(Layer(texture, replace(motion, pivot=middle, place=place, camera=camera), endless=i == 0))
    return layers


def draw_motion(rng: np.random.Generator, size: int, speed: float) -> Motion:
    """Returns a random motion by about `speed` px from time 0 to 1."""
    direction = rng.uniform(0, 2 * np.pi)
    travel = speed * np.array([np.cos(direction), np.sin(direction)])
    spin = growth = 0.0
    tilt = swing = wave = None
    if rng.random() < 0.6:  # about speed / 2 px at a quarter of the canvas from the pivot
        spin = float(np.clip(rng.normal() * speed / (0.5 * size), -0.4, 0.4))
        growth = float(np.clip(rng.normal() * speed / (0.6 * size), -0.3, 0.3))
    if rng.random() < 0.25:
        tilt = rng.uniform(-0.25, 0.25, 2) / size
        swing = np.clip(rng.normal(size=2) * speed / (0.25 * size), -0.15, 0.15) / size
    if rng.random() < 0.25:
        length = rng.uniform(0.2, 1.0, 2) * size
        # the shears stay gentle: less than a seventh of the wavelength, which keeps the slope under 0.9
        growths = rng.uniform(-0.5, 0.5, 2) * np.minimum(speed, length / 8)
        wave = Wave(rng.uniform(0, 1 / 16, 2) * length, growths, 2 * np.pi / length, rng.uniform(0, 2 * np.pi, 2))
    bend = rng.normal() * 0.04 if rng.random() < 0.3 else 0.0
    angle, zoom = rng.normal() * 0.3, rng.uniform(0.9, 1.3)
    centre = np.full(2, size / 2)
    return Motion(centre, centre, travel, angle, spin, zoom, growth, tilt, swing, bend, wave)


def add_effects(rng: np.random.Generator, frames: Sequence[np.ndarray], times: Sequence[float]) -> list[np.ndarray]:
    """Returns frames, uint8, with random changes of light, blur, noise and compression."""
    gain = rng.normal() * 0.04 if rng.random() < 0.15 else 0.0
    blur = rng.uniform(0.4, 1.2) if rng.random() < 0.2 else 0.0
    noise = rng.uniform(0.5, 4.0) if rng.random() < 0.25 else 0.0
    taken = []
    for frame, time in zip(frames, times, strict=True):
        picture = frame * np.float32(1 + gain * (time - 0.5)) if gain else frame
        if blur:
            picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), np.float32)
        if noise:
            picture = picture + rng.standard_normal(picture.shape, np.float32) * np.float32(noise)
        taken.append(np.clip(picture + 0.5, 0, 255).astype(np.uint8))
    coder = rng.random()
    return compress(rng, taken) if coder < 0.15 else recode(rng, taken) if coder < 0.35 else taken
