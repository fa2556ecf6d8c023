"""Measures the peak memory of inference_video.py on a short and on a long clip: it must not grow with length.

    python3 benchmark/memory.py                                  10 seconds against 10 minutes of 1280x720
    python3 benchmark/memory.py --rate 5 --model FILE            fewer frames, another network

Renders both clips to a temporary folder (a panning gradient, so that encoding is not the work), runs the command on
each as a process of its own, and prints a table; the last line is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commands.errors import run_command
from model import UserError

REPOSITORY = Path(__file__).resolve().parents[1]


def render(path: Path, seconds: int, rate: int, size: tuple[int, int]) -> None:
    """Writes a clip whose content moves by 4 px a frame."""
    width, height = size
    row = (np.sin(np.arange(2 * width) / 40) * 100 + 128).astype(np.uint8)
    ground = np.repeat(np.broadcast_to(row, (height, 2 * width))[:, :, None], 3, axis=2)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(seconds * rate):
            left = (4 * i) % width
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(ground[:, left : left + width]), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def measure(clip: Path, model: Path | None) -> dict[str, float]:
    """Runs the command on a clip and returns its seconds and its peak resident memory in MiB.

    UserError with the last line of its output if it fails.
    """
    command = [sys.executable, str(REPOSITORY / "inference_video.py"), f"--video={clip}", "--preset=ultrafast"]
    command += ["--overwrite", *([] if model is None else [f"--model={model}"])]
    start = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            errors.seek(0)
            last = errors.read().decode(errors="replace").rstrip().rpartition("\n")[2]
            raise UserError(f"{clip.name}: {last or f'inference_video.py ended with status {status}'}")
    return {"seconds": time.monotonic() - start, "peak_mib": usage.ru_maxrss / 1024}


def run(args: argparse.Namespace) -> None:
    """Measures a clip of each length and prints its line, then the JSON."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in args.lengths:
            clip = Path(folder) / f"{seconds}s.mp4"
            render(clip, seconds, args.rate, (args.size[0], args.size[1]))
            row = {"length": seconds, "frames": seconds * args.rate, **measure(clip, args.model)}
            rows.append(row)
            print(
                f"{seconds:6d} s of clip, {row['frames']:6d} frames: "
                f"peak {row['peak_mib']:7.0f} MiB, {row['seconds']:7.1f} s"
            )
    ratio = rows[-1]["peak_mib"] / rows[0]["peak_mib"]
    print(json.dumps({"size": args.size, "rate": args.rate, "rows": rows, "ratio": ratio}))


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lengths", type=int, nargs="+", default=[10, 600], help="seconds of the clips (default: 10 600)")
    p.add_argument("--rate", type=int, default=24, help="frames/s of the clips (default: 24)")
    p.add_argument("--size", type=int, nargs=2, default=[1280, 720], help="width and height (default: 1280 720)")
    p.add_argument("--model", type=Path, help="folder or file of weights (default: train_log)")
    args = p.parse_args(argv)
    return run_command("memory.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
