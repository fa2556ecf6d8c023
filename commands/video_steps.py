"""Runs the steps of inference_video.py that the whole output and its segments share."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

from tqdm import tqdm

from commands.network_flags import check_memory, fit_network, model_from_flags, options
from commands.speed_flags import grid_start
from commands.transition_flags import handling
from commands.video_job import VideoJob
from model import RIFE
from model.devices import pick_device
from video.frame import Frame
from video.interpolate import Report, interpolate
from video.pictures.montage import montage
from video.reading.trim import trimmed_frames
from video.timing.blur import average_samples, shutter_offsets
from video.timing.ending import Ending, close_loop, without_closing
from video.timing.output_times import multiply, resample
from video.transitions.confidence import write_measures
from video.transitions.decisions import write_decisions
from video.writing.audio import NONE
from video.writing.picture_writer import PictureWriter
from video.writing.writer import VideoWriter

PROGRAM = "inference_video.py"
DAMAGED_STATUS = 3  # exit status


def model_for_job(args: argparse.Namespace, job: VideoJob, networks: list[RIFE] | None = None) -> RIFE:
    """Returns the network on its device, in tiles where whole frames do not fit.

    `networks` holds the network if it is loaded already, and gets it otherwise.
    """
    networks = [] if networks is None else networks
    width, height = job.source.size
    check_memory(pick_device(args.device), height, width)
    if not networks:
        networks.append(model_from_flags(args, args.device, many=True))
    return fit_network(args, networks[0], height, width, report=tqdm.write)


def interpolated_frames(
    args: argparse.Namespace, job: VideoJob, model: RIFE, report: Report, *, closed: bool = False
) -> Iterator[Frame]:
    """Yields all frames of the output, of the source and made; `report` counts them.

    `closed` adds those between the last frame and the first.
    """
    source = job.source
    offsets = shutter_offsets(args.blur, args.target_fps) if args.blur else (Fraction(0),)
    grid = args.target_fps
    fastest = None if args.fps or job.animation is None else job.animation.fastest
    start = grid_start(source)
    timing = resample(grid, start, source.speed, offsets) if grid else multiply(args.multi, fastest)
    rules = handling(args, source.size, source.rotation)
    part = source.part
    if part is not None:
        timing = part.limit(timing, source.speed)
        if rules.numbers is not None:
            rules = replace(rules, numbers=frozenset(number - part.number for number in rules.numbers))

    def run_interpolation(frames: Iterable[Frame]) -> Iterator[Frame]:
        return interpolate(
            frames,
            model,
            timing,
            scale=args.scale,
            options=options(args),
            handling=rules,
            report=report,
        )

    frames = trimmed_frames(source)
    step = 1 / source.rate  # for which the closing frame is shown
    frames = close_loop(frames, step) if closed else frames
    made = (
        montage(frames, source.rotation, run_interpolation, source.speed) if args.montage else run_interpolation(frames)
    )
    made = average_samples(made, grid, start) if args.blur else made
    if closed:

        def closing() -> Fraction | None:
            """Returns when the first frame comes again, in seconds of the output."""
            time = None if report.end is None else report.end - step
            return time if time is None or source.speed is None else source.speed.output_time(time)

        made = without_closing(made, closing)
    return _renumbered(made, args.fps) if args.fps else made


def _renumbered(frames: Iterable[Frame], rate: Fraction) -> Iterator[Frame]:
    """Yields the frames one after the other at a constant rate in frames/s."""
    for number, frame in enumerate(frames):
        yield replace(frame, time=number / rate, duration=1 / rate)


def ended_frames(args: argparse.Namespace, job: VideoJob, model: RIFE, report: Report) -> Iterator[Frame]:
    """Yields the frames of the whole output: `interpolated_frames` with the end that the flags choose."""
    source = job.source
    if args.fps or args.loop:
        return interpolated_frames(args, job, model, report, closed=args.loop)

    def end() -> Fraction | None:
        """Returns when the source ends, in seconds of the output."""
        return None if report.end is None else source.output_time(report.end)

    speed = job.source.speed
    rate = source.rate if speed is None else source.rate * Fraction(speed.slowest)
    ending = Ending(job.rate, rate, args.match_duration, exact=job.animation is not None)
    return ending.apply(interpolated_frames(args, job, model, report), end)


def introduce(args: argparse.Namespace, job: VideoJob) -> None:
    """Prints the first lines: input, rates and sound."""
    source = job.source
    count = source.count if source.count is not None else "unknown"
    print(f"{source.path.name}, {count} frames in total, {float(source.rate):g}FPS to {float(job.rate):g}FPS")
    if not job.is_video or args.fps:
        print("Will not merge audio because using png or fps flag!")
    elif args.audio == NONE:
        print("Will not merge audio because using no-audio flag!")
    elif job.animation is None and source.is_video:
        print("The audio will be merged in the same pass")


def summarise(args: argparse.Namespace, job: VideoJob, writer: VideoWriter | PictureWriter, report: Report) -> int:
    """Prints the last lines: what was written, changed and lost; returns the exit status."""
    for note in writer.notes:
        print(note)
    anew = "repeats replaced" if args.repair is None else "frames repaired"
    done = f"{report.made} made, {report.cuts} cuts held, {report.repeats} {anew}"
    print(f"Wrote {job.path}: {writer.frames} frames at {float(job.rate):g} fps, {done}")
    if job.decisions is not None:
        write_decisions(job.decisions, report.transitions)
        print(f"Wrote {job.decisions}: {len(report.transitions)} cuts, repeats and gaps")
    if (kept := len(args.damaged or ()) - report.repeats) > 0:
        print(
            f"{kept} frames named by --repair are as they were: only a few in a row, between two others, are made anew"
        )
    if report.given is not None and (unused := report.given.unused):
        print(f"{unused} of the given decisions had no effect: no frame is near their times")
    if job.confidence is not None:
        write_measures(job.confidence, report.measures)
        print(f"Wrote {job.confidence}: {len(report.measures)} frames")
    if replaced := sum(measure.replaced for measure in report.measures):
        print(f"{replaced} frames that the network was unsure of were replaced")
    if report.again:
        print(f"{report.again} frames could not be computed in half precision and were made again in single precision")
    if report.flashes:
        print(f"{report.flashes} sudden changes of light dissolved")
    if report.gaps:
        print(f"{report.gaps} gaps in time held; --gap sets from how many seconds on")
    for note in job.source.notes:
        print(f"{job.source.path}: {note}")
    errors = [*job.source.errors, *writer.errors]
    for error in errors:
        print(f"{PROGRAM}: {job.source.path}: {error}; what could be decoded was used", file=sys.stderr)
    return DAMAGED_STATUS if errors else 0
