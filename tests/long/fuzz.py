"""Runs the commands on damaged inputs and counts tracebacks, aborts, hangs, losses and wrong refusals.

    python3 tests/long/fuzz.py --cases 3000 --seed 1         or: make fuzz
    python3 tests/long/fuzz.py --cases 200 --kind picture    video, picture or weights only

Each case damages one small valid file by a seeded mutation and runs the whole command on it in a process of its own,
with limits of time and memory. The process is forked from one that has imported everything, so a case takes less than a
second. What a video must give is found by an independent decoder: PyAV, one thread. Inputs of cases that failed are
kept in --keep. Exit status: 0, or 1 if any case failed.
"""

import argparse
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

# run as a script, only this folder is on the path
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import av
import cv2
import numpy as np
import torch
from av.error import FFmpegError
from command import finish, read_flags
from mutate import mutate
from seeds import Seed, make_seeds

import inference_img
import inference_video
from model.inference import kernels

SECONDS = 30.0  # of wall clock for a case, times --patience
MEMORY = 3 * 2**30  # bytes that a case may map beyond what is mapped at its start
LARGEST = 16384  # px; x264 takes no longer side
FASTEST = 5000  # frames/s; twice as many are the most that the command makes
ENOUGH = 3  # frames: a video of as many that are decoded must not be refused
FAILURES = ("traceback", "abort", "hang", "silent loss", "refused", "extra lines", "wrong status")
PROGRESS = re.compile(r"^.*\d+(frame|picture)\S*.*$|^\s*\d+%\|.*$", re.MULTILINE)


class Outcome(NamedTuple):
    """Holds how one case ended."""

    case: int
    seed: str  # name of the valid file
    status: int | None  # exit status, negative after a signal, None after a hang
    failures: tuple[str, ...]  # of FAILURES
    stderr: str


def run_child(argv: Sequence[str], folder: Path) -> None:
    """Runs a command in this process, which then ends; its output goes to files in `folder`."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY), descriptor)
    os.chdir(folder)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = inference_video if argv[0] == "inference_video" else inference_img
    status = 70
    try:
        status = command.main(list(argv[1:]))
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 1
    except BaseException:  # noqa: BLE001 - this is what the run counts
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_forked(argv: Sequence[str], folder: Path, seconds: float) -> int | None:
    """Runs a command in a forked process; returns its exit status, minus a signal, or None if it did not end."""
    child = os.fork()
    if child == 0:
        run_child(argv, folder)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def arguments(seed: Seed, weights: str) -> list[str]:
    """Returns the command line for a damaged seed."""
    common = ["--device", "cpu", "--model"]
    if seed.kind == "video":
        options = ["--exp", "1", "--preset", "ultrafast", "--output", "out.mkv"]
        return ["inference_video", "--video", seed.name, *options, *common, weights]
    if seed.kind == "picture":
        return ["inference_img", "--img", seed.name, seed.name, "--exp", "1", *common, weights]
    return ["inference_img", "--img", "one.png", "two.png", "--exp", "1", *common, seed.name]


def decoded_frames(path: Path) -> int:
    """Returns how many frames of the best video stream one thread of FFmpeg decodes; damaged packets are skipped."""
    count = 0
    try:
        with av.open(str(path)) as container:
            stream: Any = container.streams.best("video")
            if stream is None:
                return 0
            stream.thread_type = "NONE"
            packets: Any = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                except FFmpegError:
                    break
                if packet is None:
                    break
                try:
                    count += len(packet.decode())
                except FFmpegError:
                    continue
    except (FFmpegError, ValueError):
        pass
    return count


def largest_side(path: Path) -> int:
    """Returns the longest side in pixels of a video as its container states it, 0 if there is none."""
    with suppress(FFmpegError, ValueError), av.open(str(path)) as container:
        return max((max(stream.width, stream.height) for stream in container.streams.video), default=0)
    return 0


def stated_rate(path: Path) -> float:
    """Returns the frames/s of the best video stream as its container states it, 0 if there is none."""
    with suppress(FFmpegError, ValueError), av.open(str(path)) as container:
        stream = container.streams.best("video")
        return float(getattr(stream, "average_rate", None) or 0)
    return 0.0


def wrongly_refused(path: Path) -> bool:
    """Returns whether a video has frames to interpolate, of a size that x264 takes, at a rate that can be doubled."""
    return decoded_frames(path) >= ENOUGH and largest_side(path) <= LARGEST and stated_rate(path) <= FASTEST


def lost(seed: Seed, folder: Path) -> bool:
    """Returns whether a run that ended with status 0 gave less than it should have, without a word."""
    if seed.kind == "video":
        given = decoded_frames(folder / seed.name)
        held = re.search(r"^(\d+) gaps in time held", (folder / "stdout").read_text(errors="replace"), re.MULTILINE)
        return decoded_frames(folder / "out.mkv") < 2 * given - 1 - (int(held[1]) if held else 0)
    suffix = ".exr" if (folder / "output" / "img0.exr").exists() else ".png"
    made = [cv2.imread(str(folder / "output" / f"img{i}{suffix}"), cv2.IMREAD_UNCHANGED) for i in range(3)]
    if any(image is None for image in made):
        return True
    return seed.kind == "weights" and not np.any(made[1])  # black: the weights were no numbers


def judge(seed: Seed, folder: Path, status: int | None) -> tuple[str, ...]:
    """Returns which of FAILURES a case shows."""
    stderr = (folder / "stderr").read_text(errors="replace")
    lines = [line for line in PROGRESS.sub("", stderr.replace("\r", "\n")).split("\n") if line.strip()]
    found = {
        "traceback": "Traceback (most recent call last)" in stderr,
        "abort": status is not None and status < 0,
        "hang": status is None,
        "silent loss": status == 0 and lost(seed, folder),
        "refused": status == 1 and seed.kind == "video" and wrongly_refused(folder / seed.name),
        "extra lines": "Traceback" not in stderr
        and ((status == 1 and len(lines) != 1) or (status == 0 and seed.kind == "picture" and bool(lines))),
        "wrong status": status is not None and status >= 0 and status not in (0, 1, 3),
    }
    return tuple(name for name, failed in found.items() if failed)


def run_case(case: int, seed: Seed, args: argparse.Namespace, weights: Path, pair: dict[str, bytes]) -> Outcome:
    """Damages a seed, runs the command on it and judges the result."""
    rng = np.random.default_rng([args.seed, case])
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        files = dict(seed.files)
        target = sorted(files)[int(rng.integers(len(files)))]
        files[target] = mutate(rng, files[target])
        for name, data in (files | pair if seed.kind == "weights" else files).items():
            (folder / name).write_bytes(data)
        status = run_forked(arguments(seed, str(weights)), folder, SECONDS * args.patience)
        failures = judge(seed, folder, status)
        stderr = (folder / "stderr").read_text(errors="replace")
        if failures and args.keep:
            shutil.copytree(folder, args.keep / f"{args.seed}_{case}", dirs_exist_ok=True)
        return Outcome(case, seed.name, status, failures, stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def render_table(outcomes: Sequence[Outcome]) -> str:
    """Returns a table: a row a format, the runs, their exit statuses and failures; the last row is the sum."""
    statuses = sorted({outcome.status for outcome in outcomes if outcome.status is not None})
    columns = ["runs", *(f"exit {status}" for status in statuses), *FAILURES]
    rows: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for row in (outcome.seed, "all"):
            count = rows.setdefault(row, Counter())
            count.update(["runs", *outcome.failures])
            count.update([] if outcome.status is None else [f"exit {outcome.status}"])
    widths = [max(len(column), 4) for column in columns]
    lines = [" " * 20 + "".join(f"  {c:>{w}}" for c, w in zip(columns, widths, strict=True))]
    for name in [*(name for name in rows if name != "all"), "all"]:
        values = "".join(f"  {rows[name][c]:>{w}}" for c, w in zip(columns, widths, strict=True))
        lines.append(f"{name:20}{values}")
    return "\n".join(lines)


def prepare() -> None:
    """Brings this process into a state that can be forked: no threads, everything imported and compiled."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    kernels.available()


def run(args: argparse.Namespace) -> list[Outcome]:
    """Runs all cases in turn over the formats; prints failures as they come."""
    prepare()
    seeds = [seed for seed in make_seeds() if args.kind in (None, seed.kind)]
    small = next(seed for seed in make_seeds() if seed.name == "flownet.safetensors")
    flat = next(seed for seed in make_seeds() if seed.name == "a.png")
    pair = {"one.png": flat.files["a.png"], "two.png": flat.files["a.png"]}
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / small.name
        weights.write_bytes(small.files[small.name])
        for case in range(args.first, args.first + args.cases):
            try:
                outcome = run_case(case, seeds[case % len(seeds)], args, weights, pair)
            except KeyboardInterrupt:
                break  # with the table of the cases until then
            outcomes.append(outcome)
            if outcome.failures:
                last = outcome.stderr.strip().split("\n")[-1][:200]
                print(
                    f"case {case} {outcome.seed}: {', '.join(outcome.failures)} ({outcome.status}): {last}", flush=True
                )
    return outcomes


def main(argv: list[str] | None = None) -> int:
    """Runs the fuzz; returns 1 if a case failed."""
    numbers = {
        "cases": (3000, "number of cases"),
        "seed": (0, "of all mutations"),
        "first": (0, "number of the first case, to repeat one"),
        "patience": (1.0, f"times {SECONDS:g} s a case at most"),
    }
    kind = {"choices": ["video", "picture", "weights"], "help": "only these inputs (default: all)"}
    keep = {"type": Path, "metavar": "DIR", "help": "keep the files of failed cases here (default: none)"}
    args = read_flags(__doc__, numbers, argv, kind=kind, keep=keep)
    start = time.monotonic()
    outcomes = run(args)
    failed = sum(bool(outcome.failures) for outcome in outcomes)
    print(render_table(outcomes))
    counts = {name: sum(name in outcome.failures for outcome in outcomes) for name in FAILURES}
    seconds = time.monotonic() - start
    return finish(failed, cases=len(outcomes), seed=args.seed, **counts, seconds=round(seconds))


if __name__ == "__main__":
    sys.exit(main())
