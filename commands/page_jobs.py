"""Runs the work behind the page of app.py, by the steps of inference_video.py: a preview, and the whole video."""

import argparse
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import numpy as np

from commands.network_flags import pick_scale
from commands.progress import Progress
from commands.video_flags import build_parser, check_arguments
from commands.video_job import VideoJob, open_writer, plan_job
from commands.video_steps import ended_frames, interpolated_frames, model_for_job
from model import RIFE
from model.errors import UserError
from video.frame import Frame
from video.interpolate import Report
from video.pictures.picture import eight_bit
from video.prefetch import prefetch
from video.writing.picture_writer import upright

UPDATE = 0.5  # seconds between two texts of a running job


def video_settings(video: str, output: Path, *more: str, factor: float, rate: float | None) -> argparse.Namespace:
    """Returns the settings of inference_video.py for one video: `factor` times its frames, or `rate` frames/s.

    `more` are other arguments of the command. Raises UserError if the command refuses them.
    """
    parser = build_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(message)

    parser.error = refuse  # type: ignore[method-assign]
    speed = ["--target-fps", f"{rate:g}"] if rate else ["--multi", f"{factor:g}"]
    args = parser.parse_args(["--video", video, "--output", str(output), "--scale", "auto", *speed, *more])
    check_arguments(parser, args)
    return args


def make_preview(args: argparse.Namespace, networks: list[RIFE]) -> tuple[np.ndarray, np.ndarray]:
    """Returns a frame of the source and the first made frame after it, both (H,W,3) uint8.

    The search begins at the start of the span that the settings give. Raises UserError if no frame is made there.
    """
    job, model = _begin(args, networks)
    before: Frame | None = None
    with closing(prefetch(interpolated_frames(args, job, model, Report()))) as frames:
        for frame in frames:
            if frame.made and before is not None:
                first, second = (_as_shown(shown, job) for shown in (before, frame))
                return first, second
            before = frame
    raise UserError("nothing moves from this second to the end: no frame is made there; choose an earlier second")


def make_video(args: argparse.Namespace, networks: list[RIFE]) -> Generator[tuple[int, int | None, str], None, None]:
    """Writes the video; yields the frames written, of how many, and a line of text, about twice a second.

    The last line has the number of frames. Closing the generator ends the work.
    """
    job, model = _begin(args, networks)
    report, shown = Report(), time.monotonic()
    with open_writer(args, job) as writer, Progress(job.count, job.rate) as progress:
        notes = [*writer.notes]
        with closing(prefetch(ended_frames(args, job, model, report))) as frames:
            for frame in frames:
                writer.write(frame)
                progress.add(frame)
                if (now := time.monotonic()) - shown >= UPDATE:
                    shown = now
                    yield writer.frames, job.count, progress.line(now)
    done = f"{writer.frames} frames at {float(job.rate):g} frames/s, {report.made} of them made"
    lines = [done, *notes, *job.source.notes, *job.source.errors, *writer.errors]
    yield writer.frames, writer.frames, "\n".join(lines)


def _begin(args: argparse.Namespace, networks: list[RIFE]) -> tuple[VideoJob, RIFE]:
    """Opens the source and loads the network; `networks` holds it if it is loaded already, and gets it otherwise."""
    job = plan_job(args)
    if args.scale is None:
        args.scale = pick_scale(job.source.size[1], job.source.size[0])
    return job, model_for_job(args, job, networks)


def _as_shown(frame: Frame, job: VideoJob) -> np.ndarray:
    """Returns a picture as a player shows it, (H,W,3) uint8."""
    return eight_bit(upright(frame.rgb(), job.source.rotation))[..., :3]
