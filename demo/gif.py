"""Makes the moving picture of the README: a part of the demonstration clip before and after the interpolation.

    python3 demo/gif.py                    writes demo/demo.gif with the default weights
    python3 demo/gif.py --model DIR        the same with other weights

Left: the frames of the clip, 6.25 a second. Right: 25 a second, three of four made by the network. Both play at half
of their true speed. Nothing is enlarged or reduced: a pixel of the GIF is a pixel of a frame.
"""

import argparse
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # a script's own folder is on the path, the folder of the project is not

from render import background, draw  # noqa: E402

from model import load_model, pick_device  # noqa: E402
from model.image import to_picture, to_tensor  # noqa: E402
from model.loading import TRAIN_LOG  # noqa: E402
from video.writing.encoding import palette_graph  # noqa: E402

FACTOR = 4  # output frames for each frame of the clip
DELAY = Fraction(4, 100)  # seconds; GIF counts in hundredths, and browsers slow down delays below 2 of them
START, STEP, COUNT = 1.0, 0.08, 13  # seconds of the clip: first frame, distance of frames; number of frames
SHOWN_COLUMNS = slice(130, 450)  # px, the part of each frame that is shown
BAR, GAP = 26, 6  # px: height of the captions, width of the line between both halves
WHITE = 255


def make_frames(weights: Path, device: str | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the pictures (H,W,3) RGB before and after, as many of each: every frame before is shown FACTOR times."""
    ground = background()
    sources = [draw(ground, START + STEP * i) for i in range(COUNT)]
    model = load_model(weights, device=pick_device(device))
    times = [Fraction(i, FACTOR) for i in range(1, FACTOR)]
    before: list[np.ndarray] = []
    after: list[np.ndarray] = []
    for first, second in pairwise(sources):
        before += [first] * FACTOR
        made = model.between(to_tensor(first), to_tensor(second), times)
        after += [first, *(to_picture(image) for image in made)]
    return before, after


def caption(text: str, width: int) -> np.ndarray:
    """Returns a white bar (BAR,width,3) with black text."""
    bar = np.full((BAR, width, 3), WHITE, np.uint8)
    cv2.putText(bar, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return bar


def side_by_side(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Returns both pictures (H,W,3) with captions as one picture."""
    halves = [
        np.concatenate((caption(text, picture[:, SHOWN_COLUMNS].shape[1]), picture[:, SHOWN_COLUMNS]))
        for text, picture in (("before: 6.25 frames/s", before), ("after: 25 frames/s", after))
    ]
    return np.concatenate((halves[0], np.full((len(halves[0]), GAP, 3), WHITE, np.uint8), halves[1]), axis=1)


def write_gif(path: Path, pictures: list[np.ndarray]) -> None:
    """Writes the pictures (H,W,3) RGB as an endless GIF with one palette of 256 colours for all."""
    height, width = pictures[0].shape[:2]
    graph = palette_graph((width, height), "rgb24", DELAY, "stats_mode=full", "dither=none:diff_mode=rectangle")
    for i, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        frame.pts, frame.time_base = i, DELAY
        graph.vpush(frame)
    graph.vpush(None)
    with av.open(str(path), "w", format="gif", options={"loop": "0"}) as out:
        stream = out.add_stream("gif", rate=1 / DELAY)
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        for i in range(len(pictures)):
            frame = graph.vpull()
            frame.pts, frame.time_base = i, DELAY
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def main(argv: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "demo.gif", help="the GIF (default: demo/demo.gif)")
    parser.add_argument("--model", type=Path, default=TRAIN_LOG, help="folder or file of weights (default: train_log)")
    parser.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    args = parser.parse_args(argv)
    before, after = make_frames(args.model, args.device)
    write_gif(args.output, [side_by_side(*pair) for pair in zip(before, after, strict=True)])
    print(f"Wrote {args.output}: {len(after)} frames, {args.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
