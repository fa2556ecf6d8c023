"""Measures the video loop: how long the network waits, and how long each step around it takes.

python3 benchmark/loop.py --video video.mp4                     its first 12 frames, to twice the rate
python3 benchmark/loop.py --video video.mp4 --frames 48 --model DIR --device cuda --fp16

Two measurements. The loop as inference_video.py runs it, encoder included: frames a second, and the share of the time
that the network's thread waits for a decoded frame or for room in front of the encoder (wall clock). And each step
alone, decoder and encoder (H.264, as by default) among them, a frame, as a share of the network's time: processor time
on a CPU, wall clock elsewhere. The last line is JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.device import interleaved, synchronise
from commands.errors import run_command
from commands.network_flags import add_weights_flags
from model import RIFE, load_model, pick_device
from model.frames import FLOW_SCALES
from model.image import from_layers, to_layers
from model.inference.memory import keep_freed_memory
from video.frame import Frame
from video.interpolate import Report, interpolate
from video.prefetch import prefetch
from video.reading.reader import Source, open_frames
from video.timing.output_times import multiply
from video.transitions.scene import TransitionDetector
from video.writing.writer import VideoWriter

T = TypeVar("T")
STEP_SECONDS = 1.0  # for which each step is repeated
MOST_REPETITIONS = 100_000  # repetitions of a step
OTHER_THREADS = {"to the encoder's format": "encoder", "decoding": "decoder", "encoding": "encoder"}  # on whose thread
AROUND = ("to RGB", "to the device", "padding", "thumbnail", "comparison", "to 8 bits")


def measure_loop(source: Source, model: RIFE, frames: int, scale: float) -> dict[str, float]:
    """Returns frames a second of the whole loop to an H.264 file, and the shares of time that the network waits."""
    report = Report()
    blocked = 0.0

    def made() -> Iterator[Frame]:
        nonlocal blocked
        for frame in interpolate(islice(source, frames), model, multiply(2), scale=scale, report=report):
            start = time.perf_counter()
            yield frame
            blocked += time.perf_counter() - start

    start = time.perf_counter()
    written = encode(prefetch(made()), source, source.rate * 2)
    seconds = time.perf_counter() - start
    waits = {"waits_for_frames": report.waited / seconds, "waits_for_encoder": blocked / seconds}
    return {"frames_per_second": written / seconds, **waits, "idle": sum(waits.values())}


def encode(frames: Iterable[Frame], source: Source, rate: Fraction) -> int:
    """Writes frames to an H.264 file that is not kept, and returns their number."""
    with (
        tempfile.TemporaryDirectory() as folder,
        VideoWriter(Path(folder) / "out.mp4", source, rate, 1 / rate, tracks=False) as writer,
    ):
        for frame in frames:
            writer.write(frame)
    return writer.frames


def clock(device: torch.device) -> float:
    """Returns seconds: processor time on a CPU, so that other work does not count; wall-clock time elsewhere."""
    synchronise(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def milliseconds(device: torch.device, step: Callable[[], T]) -> tuple[float, T]:
    """Returns the mean milliseconds of calls for STEP_SECONDS, and the result of one more.

    The system adds up the processor time of other threads in steps of some milliseconds, so many calls are needed.
    """
    (times,) = interleaved({"": step}, device, MOST_REPETITIONS, partial(clock, device), STEP_SECONDS).values()
    return statistics.fmean(times), step()


def measure_ends(source: Source, frames: int, device: torch.device) -> dict[str, float]:
    """Returns milliseconds a frame of decoding the first frames, and of encoding them as they were decoded."""
    start = clock(device)
    decoded = list(islice(source, frames))
    middle = clock(device)
    encode(decoded, source, source.rate)
    times = {"decoding": middle - start, "encoding": clock(device) - middle}
    return {name: 1000 * seconds / len(decoded) for name, seconds in times.items()}


@torch.no_grad()
def measure_steps(source: Source, model: RIFE, scale: float) -> dict[str, float]:
    """Returns milliseconds of every step from a decoded frame to a picture for the encoder, "network" among them."""
    first, second = islice(source, 2)
    device, detector, steps = model.device, TransitionDetector(), {}
    steps["to RGB"], rgb = milliseconds(device, first.rgb)
    steps["to the device"], image = milliseconds(device, lambda: to_layers(rgb, device))
    prepared = model.prepare(image, scale=scale)
    steps["padding"], padded = milliseconds(device, lambda: prepared.padder.pad(image[:, :3]))
    size = (padded.shape[2], padded.shape[3])
    steps["thumbnail"], small = milliseconds(device, lambda: detector.signature(rgb, first.time, size))
    other = model.prepare(to_layers(second.rgb(), device), scale=scale)
    small2 = detector.signature(second.rgb(), second.time, size)
    steps["comparison"], _ = milliseconds(device, lambda: detector.compare(small, small2))
    features, _ = milliseconds(device, lambda: model.engine.frame_features(prepared.image))
    between, made = milliseconds(device, lambda: model.inference(prepared, other, scale=scale))
    steps["network"] = features + between
    steps["to 8 bits"], picture = milliseconds(device, lambda: from_layers(made, rgb.shape[2], rgb.dtype.type))
    if first.colour is not None:
        colour = first.colour
        steps["to the encoder's format"], _ = milliseconds(device, lambda: colour.from_rgb(picture, "yuv420p"))
    return steps


def run(args: argparse.Namespace) -> None:
    """Prints both measurements, then the JSON."""
    dtype = torch.float16 if args.fp16 else torch.float32
    model = load_model(args.model, arch=args.arch, device=pick_device(args.device), dtype=dtype)
    source = open_frames(args.video)
    steps = measure_steps(source, model, args.scale) | measure_ends(source, args.frames, model.device)
    around = sum(steps[name] for name in AROUND) / steps["network"]
    loop = measure_loop(source, model, args.frames, args.scale)
    width, height = source.size
    setting = f"{width}x{height}, flow at scale {args.scale:g}, {torch.get_num_threads()} threads"
    print(f"{model}\n{args.video.name}, {setting}\n")
    for name, value in steps.items():
        mark = f"  on the {OTHER_THREADS[name]}'s thread" if name in OTHER_THREADS else ""
        print(f"{name:24} {value:9.2f} ms {value / steps['network']:8.2%}{mark}")
    print(f"{'all but the network':24} {around:20.2%}  on the network's thread")
    print(
        f"whole loop: {loop['frames_per_second']:.3g} frames/s; the network waits {loop['idle']:.2%} of the time, "
        f"{loop['waits_for_frames']:.2%} for frames, {loop['waits_for_encoder']:.2%} for the encoder"
    )
    record = {"model": model.name, "weights": model.source, "device": str(model.device), "width": width}
    record |= {"height": height, "scale": args.scale, "frames": args.frames, "threads": torch.get_num_threads()}
    print(json.dumps({**record, "steps_ms": steps, "around_share": around, "loop": loop}))


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--video", type=Path, required=True, help="a video of the size to measure")
    p.add_argument("--frames", type=int, default=12, help="how many of its frames, 2 or more (default: 12)")
    add_weights_flags(p)
    p.add_argument(
        "--scale", type=float, choices=FLOW_SCALES, default=1.0, help="size at which flow is estimated (default: 1)"
    )
    p.add_argument("--fp16", action="store_true", help="compute convolutions in half precision (default: off)")
    args = p.parse_args(argv)
    if args.frames < 2:
        p.error("--frames is 2 or more")
    keep_freed_memory()
    return run_command("loop.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
