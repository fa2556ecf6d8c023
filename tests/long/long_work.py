"""Ends one job of inference_video.py many times at random moments, and checks that its frames are those of one run.

    python3 tests/long/long_work.py --kills 30 --seed 1        or: make segments

Each run is the whole command with --segments, with a network whose answer is known, in a process forked from one that
has imported everything. Shown: SIGKILL, SIGTERM, SIGINT and SIGHUP at random moments, the join among them, with the
seconds of work that each one cost, and the line that is printed; full disks while the plan, a segment and the result
are written; two runs of one job at once; the cost of segments in time of the processor and in bytes. Exit status: 0, or
1 if any check failed.
"""

import hashlib
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# run as a script, only this folder is on the path
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import av
import numpy as np
from clips import make_clip, picture
from command import finish, read_flags
from conftest import Shift

import inference_video
from commands import network_flags
from model import RIFE

COUNT, SIZE = 240, (96, 64)
LENGTH = 1  # seconds of a segment
LIMIT = 300.0  # seconds of a run
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
INTERRUPTED = 130  # exit status
KEPT = re.compile(r"interrupted: .*|\d+ of \d+ segments are finished in .*; the same command continues")
CLIPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "eval" / "clips"


class Ended(NamedTuple):
    """Holds how a run ended."""

    status: int  # exit status, negative after a signal
    seconds: float
    processor: float  # seconds of the processor


class Kill(NamedTuple):
    """Describes one kill: what had been done, and the work that was lost."""

    number: int  # of the signal
    stage: str
    after: float  # seconds from the start of the run
    finished: int  # segments
    lost: float  # seconds since the last segment was finished, or since the start


def start(place: Path, arguments: list[str], size_limit: int = 0) -> int:
    """Starts the command in a process of its own; returns its number. Files of `size_limit` bytes fill its disk."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.chdir(place)
        for number in SIGNALS[1:]:  # they are ignored in what nohup starts
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for descriptor, name in ((1, "stdout"), (2, f"stderr.{os.getpid()}")):
            os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND), descriptor)
        if size_limit:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size_limit, size_limit))
        network_flags.load_model = lambda *a, **k: RIFE(Shift(2), name="shift")
        status = inference_video.main([*arguments, "--device=cpu"])
    except BaseException:  # noqa: BLE001 - this is what the run shows
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def wait(child: int, kill: Callable[[float], bool] = lambda seconds: False, signum: int = signal.SIGKILL) -> Ended:
    """Waits for a process; sends it a signal as soon as `kill` of the seconds since the start is true."""
    begin, sent = time.monotonic(), False
    while True:
        number, status, usage = os.wait4(child, os.WNOHANG)
        seconds = time.monotonic() - begin
        if number:
            return Ended(os.waitstatus_to_exitcode(status), seconds, usage.ru_utime + usage.ru_stime)
        if seconds > LIMIT:
            os.kill(child, signal.SIGKILL)
        elif not sent and kill(seconds):
            os.kill(child, signum)
            sent = True
        time.sleep(0.001)


def frames(path: Path) -> str:
    """Returns a hash of the times and the pictures of a video, by an independent decoder."""
    digest = hashlib.sha256()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            digest.update(f"{frame.pts} ".encode())
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()


class Workshop:
    """Runs jobs in a folder, on a clip that it makes; keeps what did not hold."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        pictures = [picture(i % 40, SIZE) for i in range(COUNT)]
        self.clip = make_clip(folder / "clip.mp4", COUNT, size=SIZE, pictures=pictures, audio=["aac"])
        self.failures: list[str] = []
        ended = wait(start(folder, [*self.job("whole.mkv"), "--segments=0"]))
        self.check(ended.status == 0, "the run without segments failed")
        self.whole, self.bytes = frames(folder / "whole.mkv"), (folder / "whole.mkv").stat().st_size
        self.parts = COUNT // 24 // LENGTH

    def job(self, name: str) -> list[str]:
        """Returns the arguments of a job."""
        return ["--video", str(self.clip), "--output", name, "--codec=ffv1", f"--segments={LENGTH}"]

    def check(self, holds: bool, what: str) -> None:
        """Keeps what does not hold."""
        if not holds:
            self.failures.append(what)
            print(f"failed: {what}", flush=True)

    def check_result(self, name: str) -> None:
        """Checks that the frames of a finished job are those of one run, and that nothing is left of its folder."""
        output = self.folder / name
        self.check(output.exists() and frames(output) == self.whole, f"{name}: other frames")
        self.check(not output.with_suffix(".rife").exists(), f"{name}: its working folder is left")
        output.unlink(missing_ok=True)

    def finish(self, name: str) -> None:
        """Runs the same command to its end and checks the result."""
        ended = wait(start(self.folder, self.job(name)))
        self.check(ended.status == 0, f"{name}: the same command ended with {ended.status}")
        self.check_result(name)

    def kill(self, number: int, into_join: bool) -> Kill | None:
        """Runs the job on and kills it at a random moment; None if it ended before. `into_join`: after all segments."""
        signum = SIGNALS[number % len(SIGNALS)]
        folder = self.folder / "killed.rife"
        moment = self.random.uniform(0.05, 3.5)
        in_join = self.random.uniform(0, 0.4)
        complete: list[float] = []  # when all segments were seen finished

        def is_time(seconds: float) -> bool:
            if into_join and not complete and len(finished(folder)) == self.parts:
                complete.append(seconds)
            return bool(complete) and seconds > complete[0] + in_join if into_join else seconds > moment

        begun = time.time()
        child = start(self.folder, self.job("killed.mkv"))
        ended = wait(child, is_time, signum)
        if ended.status == 0:
            self.check_result("killed.mkv")
            return None
        if (self.folder / "killed.mkv").exists() and not folder.exists():  # killed after its last step
            self.check_result("killed.mkv")
        if signum == signal.SIGKILL:
            self.check(ended.status == -signum, f"kill {number}: exit status {ended.status}")
        else:
            self.check(ended.status == INTERRUPTED, f"kill {number}: exit status {ended.status}")
            lines = (self.folder / f"stderr.{child}").read_text().splitlines()
            self.check(bool(lines) and bool(KEPT.fullmatch(lines[-1])), f"kill {number}: standard error {lines[-1:]}")
            left = [path.name for path in folder.glob("*.new*")] + [path.name for path in folder.glob("joined*")]
            self.check(not left, f"kill {number}: {left} is left")
        done = finished(folder)
        newest = max([begun, *(path.stat().st_mtime for path in done)])
        if (self.folder / "killed.mkv").exists():
            stage = "removal"
        elif not (folder / "plan.json").exists():
            stage = "plan"
        else:
            stage = "join" if len(done) == self.parts else "segment"
        return Kill(signum, stage, ended.seconds, len(done), begun + ended.seconds - newest)


def finished(folder: Path) -> list[Path]:
    """Returns the finished segments in a working folder."""
    return [path for path in folder.glob("*.mkv") if path.stem.isdigit()]


def run_kills(shop: Workshop, count: int) -> None:
    """Kills one job `count` times and prints a table."""
    print(f"{'kill':>5} {'signal':8} {'stage':8} {'after':>8} {'segments':>9} {'lost':>8}")
    kills: list[Kill] = []
    while len(kills) < count:
        found = shop.kill(len(kills), into_join=len(kills) % 5 == 4)
        if found is not None:
            kills.append(found)
            name = signal.Signals(found.number).name
            print(f"{len(kills):5} {name:8} {found.stage:8} {found.after:6.2f} s {found.finished:5}/{shop.parts:<3} "
                  f"{found.lost:6.2f} s", flush=True)  # fmt: skip
    shop.finish("killed.mkv")
    print(f"most lost by one kill: {max(kill.lost for kill in kills):.2f} s")


def run_disks(shop: Workshop) -> None:
    """Fills the disk at three stages and continues after each."""
    for stage, limit in (("plan", 300), ("segment", shop.bytes // shop.parts // 2), ("join", shop.bytes * 2 // 3)):
        name = f"disk_{stage}.mkv"
        ended = wait(start(shop.folder, shop.job(name), limit))
        done = len(finished((shop.folder / name).with_suffix(".rife")))
        shop.check(ended.status == 1, f"full disk, {stage}: exit status {ended.status}")
        shop.check(not (shop.folder / name).exists(), f"full disk, {stage}: a final name")
        shop.check(done == (shop.parts if stage == "join" else 0), f"full disk, {stage}: {done} segments")
        print(f"full disk while the {stage} is written: exit status {ended.status}, {done} segments kept")
        shop.finish(name)


def run_two(shop: Workshop) -> None:
    """Starts one job twice at the same time: one run does it, the other is refused."""
    children = [start(shop.folder, shop.job("two.mkv")) for _ in range(2)]
    statuses = sorted(wait(child).status for child in children)
    shop.check(statuses == [0, 1], f"two runs at once: exit statuses {statuses}")
    print(f"two runs at once: exit statuses {statuses}")
    shop.check_result("two.mkv")


def run_cost(shop: Workshop, seconds: int) -> None:
    """Prints what segments of the default length cost in time of the processor and in bytes, by the default encoder."""
    clip = _real_clip(shop.folder / "real.mp4", seconds * 24)
    found = []
    for name, more in (("plain.mp4", ["--segments=0"]), ("parts.mp4", ["--segments=30"])):
        ended = wait(start(shop.folder, ["--video", str(clip), "--output", name, *more]))
        shop.check(ended.status == 0, f"{name}: exit status {ended.status}")
        found.append((ended.processor, (shop.folder / name).stat().st_size))
    shares = [100 * (b / a - 1) for a, b in zip(*found, strict=True)]
    print(f"cost of segments of 30 s, {seconds} s of video: {found[0][0]:.1f} s of the processor without, "
          f"{found[1][0]:.1f} s with ({shares[0]:+.1f} %); {found[0][1]} bytes without, {found[1][1]} with "
          f"({shares[1]:+.2f} %)")  # fmt: skip
    shop.check(shares[1] < 2, "segments cost 2 % of the bytes or more")


def _real_clip(path: Path, count: int) -> Path:
    """Makes a clip of real pictures where there are any, each clip forwards and backwards; of drawn ones otherwise."""
    pictures: list[np.ndarray] = []
    for file in sorted(CLIPS.glob("*.mp4")) if CLIPS.is_dir() else []:
        with av.open(str(file)) as container:
            shots = [f.reformat(320, 180, "rgb24").to_ndarray() for f in container.decode(video=0)]
        pictures += [*shots, *shots[::-1]]
    pictures = pictures or [picture(i, (320, 180)) for i in range(100)]
    return make_clip(path, count, size=(320, 180), pictures=[pictures[i % len(pictures)] for i in range(count)])


def main(argv: list[str] | None = None) -> int:
    """Runs the chosen shares; the last line is JSON."""
    numbers = {
        "kills": (30, "kills of one job"),
        "cost": (90, "seconds of the clip for the cost; 0: none"),
        "seed": (0, "of the random moments"),
    }
    args = read_flags(__doc__, numbers, argv)
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), args.seed)
        run_kills(shop, args.kills)
        run_disks(shop)
        run_two(shop)
        if args.cost:
            run_cost(shop, args.cost)
    return finish(len(shop.failures), kills=args.kills)


if __name__ == "__main__":
    sys.exit(main())
