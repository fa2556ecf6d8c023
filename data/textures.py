"""Draws the textures of the layers of a synthetic scene: photos or flat colours, cut out by shapes, text or lines."""

from collections.abc import Sequence

import cv2
import numpy as np

RgbPicture = np.ndarray  # (H,W,3) uint8 RGB


def draw_background(rng: np.random.Generator, size: int, textures: Sequence[RgbPicture], graphic: bool) -> np.ndarray:
    """Returns an opaque texture (h,w,3), 1.7 times as wide as the canvas."""
    side = int(1.7 * size)
    return flat_colours(rng, side) if graphic and rng.random() < 0.7 else cut_texture(rng, side, side, textures)


def draw_texture(rng: np.random.Generator, size: int, textures: Sequence[RgbPicture], graphic: bool) -> np.ndarray:
    """Returns an object (h,w,4): a piece of a photo, or flat colours, cut out by a blob, a polygon, text or lines."""
    h, w = (int(v) for v in np.exp(rng.uniform(np.log(0.15), np.log(0.9), 2)) * size)
    h, w = max(h, 24), max(w, 24)
    colour = flat_colours(rng, max(h, w))[:h, :w] if graphic else cut_texture(rng, h, w, textures)
    kind = rng.choice(["blob", "polygon", "ellipse", "text", "lines"], p=[0.35, 0.2, 0.2, 0.12, 0.13])
    opacity = draw_shape(rng, kind, h, w)
    if kind in ("text", "lines") and rng.random() < 0.8:
        colour = np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), colour.shape).copy()
    elif graphic:  # an outline, as drawn figures have
        inner = cv2.erode(opacity, np.ones((3, 3), np.uint8), iterations=int(rng.integers(1, 3)))
        colour[inner <= 128] = rng.integers(0, 60)
    if rng.random() < 0.3:  # out of focus, or moving
        opacity = cv2.GaussianBlur(opacity, (0, 0), rng.uniform(0.6, 4.0))
    if rng.random() < 0.1:
        opacity = (opacity * rng.uniform(0.3, 0.9)).astype(np.uint8)
    share = opacity / np.float32(255)
    return cv2.merge([*((plane * share).astype(np.uint8) for plane in cv2.split(colour)), opacity])


def draw_shape(rng: np.random.Generator, kind: str, h: int, w: int) -> np.ndarray:
    """Returns an opacity (h,w) uint8 with smooth edges, 0 at the border."""
    opacity = np.zeros((h, w), np.uint8)
    if kind == "blob":
        noise = rng.normal(size=(int(rng.integers(3, 8)),) * 2).astype(np.float32)
        smooth = cv2.resize(noise, (w, h), interpolation=cv2.INTER_CUBIC)
        y, x = np.ogrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
        opacity = np.clip((smooth + 1.2 - 2.4 * (x * x + y * y)) * min(h, w) * 20, 0, 255).astype(np.uint8)
    elif kind == "polygon":
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        radius = rng.uniform(0.4, 1.0, len(angles)) * 0.46
        corners = np.stack((w * (0.5 + radius * np.cos(angles)), h * (0.5 + radius * np.sin(angles))), 1)
        cv2.fillPoly(opacity, [corners.astype(np.int32)], 255, cv2.LINE_AA)
    elif kind == "ellipse":
        cv2.ellipse(opacity, (w // 2, h // 2), (int(w * 0.46), int(h * 0.46)), 0, 0, 360, 255, -1, cv2.LINE_AA)
    elif kind == "text":
        scale, thick = rng.uniform(0.4, 1.6), int(rng.integers(1, 4))
        for line in range(int(22 * scale), h, int(30 * scale)):
            word = "".join(chr(c) for c in rng.integers(48, 123, 12))
            cv2.putText(opacity, word, (3, line), int(rng.integers(0, 8)), scale, 255, thick, cv2.LINE_AA)
    else:
        for _ in range(rng.integers(1, 8)):
            ends = (rng.uniform(0.04, 0.96, (3, 2)) * (w, h)).astype(np.int32)
            cv2.polylines(opacity, [ends], False, 255, int(rng.integers(1, 4)), cv2.LINE_AA)
    return opacity


def cut_texture(rng: np.random.Generator, h: int, w: int, textures: Sequence[RgbPicture]) -> np.ndarray:
    """Returns a piece (h,w,3) of a random picture at 0.3 to 1.2 times its size, at times mirrored or as BGR."""
    picture = textures[int(rng.integers(len(textures)))]
    scale = max(np.exp(rng.uniform(np.log(0.3), np.log(1.2))), h / picture.shape[0], w / picture.shape[1])
    rows, columns = (int(np.clip(n / scale, 1, side)) for n, side in zip((h, w), picture.shape[:2], strict=True))
    y, x = rng.integers(picture.shape[0] - rows + 1), rng.integers(picture.shape[1] - columns + 1)
    piece = picture[y : y + rows, x : x + columns]
    piece = cv2.resize(piece, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        piece = cv2.flip(piece, 1)
    return cv2.cvtColor(piece, cv2.COLOR_RGB2BGR) if rng.random() < 0.5 else piece


def flat_colours(rng: np.random.Generator, side: int) -> np.ndarray:
    """Returns a gradient between two colours with flat shapes on it, (side,side,3) uint8."""
    ends = rng.integers(0, 256, (2, 3)).astype(np.float32)
    ramp = np.linspace(0, rng.uniform(0, 1), side, dtype=np.float32)[:, None, None]
    picture = np.broadcast_to(ends[0] + (ends[1] - ends[0]) * ramp, (side, side, 3)).astype(np.uint8).copy()
    for _ in range(rng.integers(2, 12)):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        corners = (rng.uniform(0, side, 2) + rng.normal(size=(rng.integers(3, 7), 2)) * side / 8).astype(np.int32)
        cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA)
    return picture


def compress(rng: np.random.Generator, frames: Sequence[RgbPicture]) -> list[RgbPicture]:
    """Returns the frames after JPEG compression at one random quality."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))]
    coded = (cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), quality)[1] for frame in frames)
    return [read_coded(data) for data in coded]


def read_coded(data: np.ndarray) -> RgbPicture:
    """Decodes the bytes of a picture file to (H,W,3) uint8 RGB."""
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return picture
