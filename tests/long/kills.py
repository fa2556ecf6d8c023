"""Ends runs of inference_video.py at random moments, by signals and by full disks, and checks what they leave.

    python3 tests/long/kills.py --kills 60 --disks 30 --seed 1        or: make kills

Each case runs the whole command, with a network whose answer is known, in a process forked from one that has imported
everything. It is ended by SIGKILL, SIGTERM, SIGINT or SIGHUP at a random moment of its time, or by a limit on the size
of its files, which the command meets as it does a full disk. Checked: no final name without the whole result; a part
that plays, up to the last frame after a signal and nearly to it after SIGKILL or a full disk; no traceback; one exit
status. Exit status: 0, or 1 if any case failed.
"""

import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

# run as a script, only this folder is on the path
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import av
from av.error import FFmpegError
from clips import make_clip, picture
from command import finish, read_flags
from conftest import Shift

import inference_video
from commands import network_flags
from model import RIFE
from video.frame import Frame
from video.pictures.picture import MediaError, read_picture
from video.writing.picture_writer import PictureWriter
from video.writing.writer import VideoWriter

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
OUTPUTS = ("mp4", "mov", "mkv", "png")
SOURCE_FRAMES, MULTI, RATE = 60, 4, Fraction(24)
FRAMES = (SOURCE_FRAMES - 1) * MULTI + 1
# Frames that may be missing from a part that was not finished: the encoder's lookahead, half a second not yet written.
MISSING = 64 + int(RATE * MULTI / 2) + 8
LIMIT = 120.0  # seconds for a case


class Case(NamedTuple):
    """Holds what ends one run, and when."""

    kind: str  # a signal, or "disk"
    output: str  # of OUTPUTS
    moment: float  # share of the time, or of the size, of a run that nothing ends


class Result(NamedTuple):
    """Holds how one run ended."""

    case: Case
    status: int  # exit status, negative after a signal
    written: int  # frames that the command had given to its writer
    left: str  # "nothing", "part" or "final"
    playable: int  # frames in what is left
    failures: tuple[str, ...]


class Workshop:
    """Runs cases in a folder, on a clip that it makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pictures = [picture(i % 9, (96, 64)) for i in range(SOURCE_FRAMES)]
        self.clip = make_clip(folder / "clip.mp4", SOURCE_FRAMES, size=(96, 64), pictures=pictures, audio=["aac"])
        self._written = mmap.mmap(-1, 4)  # shared with the child
        self.seconds: dict[str, float] = {}
        self.bytes: dict[str, int] = {}
        for output in OUTPUTS:
            place = self._place(f"whole_{output}")
            start = time.monotonic()
            if self._run(place, output, None, 0) != 0:
                raise RuntimeError((place / "stderr").read_text())
            self.seconds[output] = time.monotonic() - start
            made = place / f"out.{output}"
            self.bytes[output] = made.stat().st_size if made.is_file() else 2**20

    def _place(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir()
        return place

    def _run(self, place: Path, output: str, number: int | None, limit: float) -> int:
        """Runs the command; sends a signal after `limit` seconds, or limits files to `limit` bytes if not 0."""
        self._written[:] = bytes(4)
        child = os.fork()
        if child == 0:
            self._run_child(place, output, 0 if number is not None else int(limit))
        start = time.monotonic()
        while time.monotonic() - start < LIMIT:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if number is not None and time.monotonic() - start >= limit:
                os.kill(child, number)
                number = None
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise TimeoutError(f"{place.name} took more than {LIMIT} s")

    def _run_child(self, place: Path, output: str, limit: int) -> None:
        """Runs the command in this process, which then ends."""
        status = 70
        try:
            os.chdir(place)
            for descriptor, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY), descriptor)
            if limit:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # as inference_video.py does for the time of its imports
            network_flags.load_model = lambda *a, **k: RIFE(Shift(2), name="shift")
            self._count_frames()
            target = ["--png", "--output", "out.png"] if output == "png" else ["--output", f"out.{output}"]
            status = inference_video.main(
                ["--video", str(self.clip), f"--multi={MULTI}", "--static-threshold=1", "--device=cpu", *target]
            )
        except BaseException:  # noqa: BLE001 - this is what the run counts
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _count_frames(self) -> None:
        """Makes both writers store the number of their frames where the parent reads it."""
        for writer in (VideoWriter, PictureWriter):

            def write(self: VideoWriter, frame: Frame, original=writer.write, memory=self._written) -> None:  # type: ignore[no-untyped-def]
                original(self, frame)
                memory[:] = struct.pack("i", self.frames)

            writer.write = write  # type: ignore[method-assign]

    def run(self, number: int, case: Case) -> Result:
        """Runs one case and checks what it leaves."""
        place = self._place(f"case_{number}")
        if case.kind == "disk":
            status = self._run(place, case.output, None, max(1000, case.moment * self.bytes[case.output]))
        else:
            status = self._run(place, case.output, getattr(signal, case.kind), case.moment * self.seconds[case.output])
        written = struct.unpack("i", self._written[:])[0]
        left, playable = examine(place, case.output)
        stderr = place / "stderr"  # missing if the signal came first
        failures = judge(case, status, written, left, playable, stderr.read_text() if stderr.exists() else "")
        return Result(case, status, written, left, playable, tuple(failures))


def examine(place: Path, output: str) -> tuple[str, int]:
    """Returns which name was left in a folder, and how many frames can be read from it, -1 if it is damaged."""
    if output == "png":
        made = [path for path in place.glob("out.png/*") if ".part." not in path.name]
        try:
            return ("final" if len(made) == FRAMES else "part" if made else "nothing"), sum(
                read_picture(path).shape == (64, 96, 3) for path in made
            )
        except MediaError:
            return "part", -1
    for name, path in (("final", place / f"out.{output}"), ("part", place / f"out.part.{output}")):
        if path.exists():
            return name, count_frames(path)
    return "nothing", 0


def count_frames(path: Path) -> int:
    """Returns the number of frames that an independent decoder gets from a file, -1 if it cannot be opened."""
    try:
        with av.open(str(path)) as container:
            count = 0
            try:
                for _ in container.decode(video=0):
                    count += 1
            except FFmpegError:  # the last packet may be cut off
                pass
            return count
    except FFmpegError:
        return -1


def judge(case: Case, status: int, written: int, left: str, playable: int, stderr: str) -> list[str]:
    """Returns what is wrong with the end of a run."""
    failures = []
    expected = {"SIGKILL": (-signal.SIGKILL,), "disk": (1,)}.get(case.kind, (130,))
    early = not written and left == "nothing"  # the signal came before the command handled signals
    if status not in (*expected, 0) and not (early and status < 0):
        failures.append(f"status {status}")
    if "Traceback" in stderr:
        failures.append("traceback")
    if left == "final" and playable != FRAMES:
        failures.append("false final name")
    if status == 0 and left != "final":
        failures.append("no result")
    unfinished = case.kind in ("SIGKILL", "disk")
    whole = 2 + (MISSING if unfinished and case.output != "png" else 0)  # frames from which on there must be a part
    if left == "part" and playable < 0 and not (unfinished and written < whole):
        failures.append("the part does not play")
    elif left == "part" and 0 <= playable < written - (MISSING if unfinished and case.output != "png" else 0):
        failures.append("frames lost")
    elif left == "nothing" and written >= whole:
        failures.append("everything lost")
    return failures


def render_table(results: Sequence[Result]) -> str:
    """Returns a table with a row for each way of ending, and a line for each failure."""
    lines = [f"{'ended by':10}{'cases':>7}{'nothing':>9}{'part':>6}{'final':>7}{'frames kept':>13}{'failures':>10}"]
    for kind in dict.fromkeys(result.case.kind for result in results):
        rows = [result for result in results if result.case.kind == kind]
        left = Counter(row.left for row in rows)
        parts = [row for row in rows if row.left == "part"]
        kept = sum(max(row.playable, 0) for row in parts) / max(sum(row.written for row in parts), 1)
        lines.append(
            f"{kind:10}{len(rows):7}{left['nothing']:9}{left['part']:6}{left['final']:7}"
            f"{f'{100 * kept:.0f} %':>13}{sum(bool(row.failures) for row in rows):10}"
        )
    lines += [f"failed: {result}" for result in results if result.failures]
    return "\n".join(lines)


def make_cases(kills: int, disks: int, seed: int) -> list[Case]:
    """Returns the cases of a seed: every signal and output in turn, the moments at random."""
    rng = random.Random(seed)
    cases = [Case(SIGNALS[i % 4], OUTPUTS[i // 4 % 4], rng.uniform(0, 1.1)) for i in range(kills)]
    return cases + [Case("disk", OUTPUTS[i % 3], rng.uniform(0, 1.1)) for i in range(disks)]


def main(argv: list[str] | None = None) -> int:
    """Runs the cases and prints the table; the last line is JSON."""
    numbers = {
        "kills": (60, "runs ended by a signal"),
        "disks": (30, "runs with a full disk"),
        "seed": (0, "of the random moments"),
    }
    args = read_flags(__doc__, numbers, argv)
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        results = [workshop.run(i, case) for i, case in enumerate(make_cases(args.kills, args.disks, args.seed))]
    print(render_table(results))
    failed = sum(bool(result.failures) for result in results)
    return finish(failed, cases=len(results), left=Counter(result.left for result in results))


if __name__ == "__main__":
    sys.exit(main())
