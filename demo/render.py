"""Renders the demonstration clip and two pictures of it: 3 seconds of moving shapes and text, with sound.

    python3 demo/render.py                   writes demo/clip.mp4, demo/img0.png and demo/img1.png

Everything is drawn by this program, so the repository contains no pictures of other people.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
SIZE = (480, 270)
RATE = 24  # frames/s
CLIP_SECONDS = 3
SAMPLES = 48000  # Hz
SUBPIXEL = 4  # fractional bits of OpenCV's drawing coordinates
PICTURE_TIMES = (1.0, 1 + 2 / RATE)  # seconds of the clip


def background() -> np.ndarray:
    """Returns hills of smooth noise under a gradient sky, (H,2W,3) uint8, wide enough for the camera to pan."""
    width, height = SIZE[0] * 2, SIZE[1]
    noise = np.random.default_rng(3).random((height // 6, width // 6, 3)).astype(np.float32)
    texture = cv2.resize(cv2.GaussianBlur(noise, (0, 0), 1.2), (width, height), interpolation=cv2.INTER_CUBIC)
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = np.array([0.35, 0.55, 0.85], np.float32) * (1 - rows) + np.array([0.95, 0.75, 0.55], np.float32) * rows
    hills = 0.62 + 0.12 * np.sin(np.arange(width) / 70) + 0.05 * np.sin(np.arange(width) / 23 + 1)
    ground = rows[:, :, 0] > hills[None]
    grass = np.array([0.25, 0.45, 0.22], np.float32)
    picture = np.where(ground[:, :, None], grass + 0.5 * (texture - 0.5), sky + 0.06 * (texture - 0.5))
    return (picture.clip(0, 1) * 255).astype(np.uint8)


def draw(ground: np.ndarray, t: float) -> np.ndarray:
    """Returns the frame (H,W,3) RGB at t seconds: the camera pans, a ball bounces, a wheel turns, a text passes."""
    width, height = SIZE
    pan = np.array([[1, 0, -20 - 60 * t], [0, 1, 0]], np.float32)
    picture = cv2.warpAffine(ground, pan, SIZE, flags=cv2.INTER_CUBIC)

    def at(x: float, y: float) -> tuple[int, int]:
        return round(x * 2**SUBPIXEL), round(y * 2**SUBPIXEL)

    options = {"lineType": cv2.LINE_AA, "shift": SUBPIXEL}
    x = 60 + 130 * t
    y = height - 50 - abs(np.sin(t * 4)) * 110
    cv2.circle(picture, at(x, y), round(26 * 2**SUBPIXEL), (225, 60, 50), -1, **options)
    cv2.circle(picture, at(x - 8, y - 8), round(7 * 2**SUBPIXEL), (255, 190, 180), -1, **options)
    hub = np.array([width - 110.0, 120.0])
    for spoke in range(6):
        angle = t * 1.8 + spoke * np.pi / 3
        end = hub + 62 * np.array([np.cos(angle), np.sin(angle)])
        cv2.line(picture, at(*hub), at(*end), (245, 240, 225), 7, **options)
    cv2.circle(picture, at(*hub), round(66 * 2**SUBPIXEL), (245, 240, 225), 5, **options)
    words = np.zeros((40, 330, 3), np.uint8)
    cv2.putText(words, "frames between frames", (6, 28), cv2.FONT_HERSHEY_DUPLEX, 0.8, (255, 255, 255), 1, cv2.LINE_AA)
    slide = np.array([[1, 0, 420 - 120 * t], [0, 1, 12]], np.float32)
    light = cv2.warpAffine(words, slide, SIZE).astype(np.float32) / 255
    return (picture * (1 - light) + np.array([40, 30, 60]) * light).round().astype(np.uint8)


def render(path: Path) -> None:
    """Writes the clip with sound: H.264 and AAC."""
    ground = background()
    times = np.arange(CLIP_SECONDS * SAMPLES) / SAMPLES
    tone = (np.sin(2 * np.pi * 330 * times) * np.abs(np.sin(times * 4)) * 6000).astype(np.int16)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE, options={"crf": "14"})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        audio = out.add_stream("aac", rate=SAMPLES, layout="mono")
        sound = av.AudioFrame.from_ndarray(tone[None], "s16", "mono")
        sound.sample_rate, sound.pts = SAMPLES, 0
        sound.time_base = Fraction(1, SAMPLES)
        out.mux(audio.encode(sound))
        out.mux(audio.encode(None))
        for i in range(CLIP_SECONDS * RATE):
            frame = av.VideoFrame.from_ndarray(draw(ground, i / RATE), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))


def write_pictures(folder: Path) -> None:
    """Writes two frames of the clip to img0.png and img1.png in the folder."""
    ground = background()
    for i, t in enumerate(PICTURE_TIMES):
        cv2.imwrite(str(folder / f"img{i}.png"), draw(ground, t)[:, :, ::-1])


def main(argv: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    help_output = "the clip; the pictures are written beside it (default: demo/clip.mp4)"
    parser.add_argument("--output", type=Path, default=HERE / "clip.mp4", help=help_output)
    args = parser.parse_args(argv)
    render(args.output)
    write_pictures(args.output.parent)
    print(f"Rendered {args.output}: {CLIP_SECONDS * RATE} frames at {RATE} fps, {SIZE[0]}x{SIZE[1]}, two pictures")


if __name__ == "__main__":
    main()
