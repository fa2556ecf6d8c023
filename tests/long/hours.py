"""Interpolates a stream of two hours with sound: the memory must stay flat, and the sound in time up to the end.

    python3 tests/long/hours.py --hours 2                             some minutes, or: make hours

The stream is sparse, one frame a second of 64x48 px: two hours are 7,200 frames. The network is one whose answer is
known. The sound beeps at every frame. Checked: the number of frames and their times, the resident memory at the start
and at the end, every sample of the sound, and the time of every packet of sound against the number of samples before
it; in MP4, where the sound is encoded, the time at which every decoded beep begins. Exit status: 0,
or 1 if anything is wrong.
"""

import hashlib
import json
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

# run as a script, only this folder is on the path
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import av
import numpy as np
from clips import picture
from command import read_flags
from conftest import Shift

import inference_video
from commands import network_flags
from model import RIFE

SAMPLES = 8000  # of the sound, a second
BEEP = 800  # samples at the start of every second
LOUD = 0.05  # of the full scale: a beep has begun
SOURCE_RATE = Fraction(1)  # frames/s
LARGEST_GROWTH = 40 * 2**20  # bytes of resident memory from a tenth of the run to its end
CYCLE = 16  # different pictures


def make_stream(path: Path, seconds: int) -> None:
    """Writes a video of one frame a second, with a beep at each frame."""
    pictures = [av.VideoFrame.from_ndarray(picture(i), "rgb24").reformat(format="yuv420p") for i in range(CYCLE)]
    beep = np.zeros((1, SAMPLES), np.int16)
    beep[0, :BEEP] = np.sin(np.arange(BEEP) * 2 * np.pi * 440 / SAMPLES) * 8000
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=SOURCE_RATE, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = out.add_stream("pcm_s16le", rate=SAMPLES, layout="mono")
        for second in range(seconds):
            shown = pictures[second % CYCLE]
            shown.pts, shown.time_base = second, 1 / SOURCE_RATE
            out.mux(video.encode(shown))
            heard = av.AudioFrame.from_ndarray(beep, "s16", "mono")
            heard.sample_rate, heard.pts, heard.time_base = SAMPLES, second * SAMPLES, Fraction(1, SAMPLES)
            out.mux(sound.encode(heard))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))


class MemoryCurve:
    """Records the resident memory of this process, as a `with` block, on a thread of its own."""

    def __init__(self) -> None:
        self.bytes: list[int] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._end.wait(0.2):
            self.bytes.append(resident_bytes())

    def __enter__(self) -> "MemoryCurve":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def growth(self) -> int:
        """Returns the bytes by which the memory of the last tenth exceeds that of the second tenth."""
        tenth = max(len(self.bytes) // 10, 1)
        return max(self.bytes[-tenth:]) - max(self.bytes[tenth : 2 * tenth])


def resident_bytes() -> int:
    """Returns the resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def read_sound(path: Path) -> tuple[str, Fraction]:
    """Returns a hash of all samples, and by how many seconds at most a packet is away from its place in the sound."""
    content, before, offset = hashlib.sha256(), 0, Fraction(0)
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.audio[0]):
            if packet.size and packet.pts is not None and packet.time_base is not None:
                offset = max(offset, abs(packet.pts * packet.time_base - Fraction(before, 2 * SAMPLES)))
                before += packet.size
                content.update(bytes(packet))
    return content.hexdigest(), offset


def beep_offset(path: Path, seconds: int) -> Fraction:
    """Returns by how many seconds at most a decoded beep begins before or after the second that it belongs to."""
    loud = np.zeros(seconds * SAMPLES, bool)
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[0]):
            assert frame.pts is not None
            assert frame.time_base is not None
            begin = round(frame.pts * frame.time_base * SAMPLES)
            samples = frame.to_ndarray().astype(np.float32).reshape(-1)
            level = np.abs(samples) > LOUD * (1 if frame.format.name.startswith("flt") else 2**15)
            loud[begin : begin + len(level)] = level[: max(len(loud) - begin, 0)]
    places = np.flatnonzero(loud)
    starts = places[np.flatnonzero(np.diff(places, prepend=-SAMPLES) > SAMPLES // 2)]
    if len(starts) != seconds:
        return Fraction(seconds)
    return Fraction(int(np.abs(starts - np.arange(seconds) * SAMPLES).max()), SAMPLES)


def read_times(path: Path) -> list[Fraction]:
    """Returns the times in seconds of the pictures, in order of display."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sorted(p.pts * p.time_base for p in container.demux(stream) if p.size)  # type: ignore[operator]


def run(folder: Path, seconds: int, suffix: str, segments: str) -> dict[str, Any]:
    """Makes and interpolates a stream of a length; returns the measurements and what is wrong."""
    source, output = folder / "stream.mkv", folder / f"made{suffix}"
    make_stream(source, seconds)
    start = time.monotonic()
    with MemoryCurve() as memory:
        arguments = [source, "--output", output, "--device", "cpu", "--preset", "ultrafast", "--segments", segments]
        status = inference_video.main([str(argument) for argument in arguments])
    took = time.monotonic() - start
    times, (samples, offset) = read_times(output), read_sound(output)
    copied = suffix != ".mp4"  # which takes no PCM: the sound is encoded
    offset = offset if copied else beep_offset(output, seconds)
    step = 1 / (2 * SOURCE_RATE)
    late = max(abs(shown - i * step) for i, shown in enumerate(times))
    wrong = {
        "exit status": status != 0,
        "frames": len(times) != 2 * seconds - 1,
        "sound": copied and samples != read_sound(source)[0],
        "sound offset": offset >= step,
        "times": late > Fraction(1, 1000),
        "memory": memory.growth() > LARGEST_GROWTH,
    }
    return {
        "container": suffix,
        "frames": len(times),
        "seconds": round(took, 1),
        "sound offset at most, ms": round(float(offset) * 1000, 3),
        "time of a frame off by at most, ms": round(float(late) * 1000, 3),
        "memory, MB": [b >> 20 for b in memory.bytes[:: max(len(memory.bytes) // 10, 1)]],
        "wrong": [name for name, is_wrong in wrong.items() if is_wrong],
    }


def main(argv: list[str] | None = None) -> int:
    """Runs a stream through each container; prints a JSON line for each; returns the exit status."""
    containers = {"nargs": "+", "default": [".mkv", ".mov", ".mp4"], "help": "suffixes (default: .mkv .mov .mp4)"}
    numbers = {"hours": (2.0, "length of the stream"), "segments": (0.0, "seconds of a segment; 0: none")}
    args = read_flags(__doc__, numbers, argv, containers=containers)
    network_flags.load_model = lambda *_, **__: RIFE(Shift(2), name="shift")
    failed = False
    for suffix in args.containers:
        with tempfile.TemporaryDirectory() as folder:
            result = run(Path(folder), round(args.hours * 3600), suffix, f"{args.segments:g}")
        print(json.dumps(result), flush=True)
        failed |= bool(result["wrong"])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
