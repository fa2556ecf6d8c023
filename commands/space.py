"""Compares the free space of the output's disk with an estimate of what the output takes."""

import argparse
import shutil
import sys
from pathlib import Path

from commands.video_job import VideoJob
from commands.video_steps import PROGRAM
from model.errors import UserError
from video.writing.encoding import CRF, Encoding

# Bytes of a pixel, in encoders that lose nothing or little. FFV1: 0.38 to 0.50 on real clips.
LOSSLESS_BYTES = {
    "ffv1": 0.45,
    "huffyuv": 0.9,
    "ffvhuff": 0.9,
    "rawvideo": 1.5,
    "prores_ks": 0.45,
    "png": 1.5,
    "gif": 0.6,
}
PICTURE_BYTES = 1.5  # bytes of a pixel in pictures
RECODED_BYTES = 1.5  # bytes of a frame encoded at the default quality, to one of a usual source
MADE_BYTES = 0.3  # bytes of a made frame, to one of the source: it differs little from its neighbours
MOST_BYTES = 0.04  # bytes of a pixel at the default quality; sources of cameras and editors have many more
CRF_OF_HALF = 6.0  # steps of --crf by which the size halves
# Of six real clips the estimate was 0.9 to 2 times the true size, 3.9 times for one with a second video track.
CLEARLY_TOO_LITTLE = 8
BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def estimate_bytes(args: argparse.Namespace, job: VideoJob) -> int | None:
    """Returns about how many bytes the output takes; None if the number of frames is unknown."""
    source = job.source
    if job.count is None or not source.count:
        return None
    pixels = source.size[0] * source.size[1] * job.count
    if not job.is_video:
        return round(PICTURE_BYTES * pixels)
    codec = Encoding(args.codec).codec_for(job.path)
    if codec in LOSSLESS_BYTES:
        return round(LOSSLESS_BYTES[codec] * pixels)
    most = MOST_BYTES * pixels
    if source.is_video and isinstance(source.location, Path):
        frames = 1 + MADE_BYTES * (job.count / source.count - 1)
        most = min(most, RECODED_BYTES * frames * source.path.stat().st_size)
    crf = CRF.get(codec)
    finer = 1.0 if args.crf is None or crf is None else 2 ** ((crf - args.crf) / CRF_OF_HALF)
    return round(most * finer)


def check_space(args: argparse.Namespace, job: VideoJob, copies: float = 1) -> None:
    """Prints a warning if the free space may not be enough; raises UserError if it is clearly too little.

    `copies` is how often the output is on the disk before the work is finished.
    """
    needed, free = None if job.is_pipe else estimate_bytes(args, job), free_bytes(job.path)
    if needed is None or free is None or copies * needed <= free:
        return
    text = f"{job.path}: takes about {format_bytes(copies * needed)}, and {format_bytes(free)} are free"
    if copies * needed > CLEARLY_TOO_LITTLE * free:
        raise UserError(f"{text}; make room, choose another disk for the output, or a higher crf")
    print(f"{PROGRAM}: {text}: it may be too little", file=sys.stderr)


def free_bytes(path: Path) -> int | None:
    """Returns the free bytes of the disk on which a file or folder is, or will be; None if they are unknown."""
    for folder in (path, *path.absolute().parents):
        if folder.is_dir():
            try:
                return shutil.disk_usage(folder).free
            except OSError:
                return None
    return None


def format_bytes(count: float) -> str:
    """Returns a number of bytes as text: 25 MB, 1.2 GB."""
    for unit in BYTE_UNITS:
        if count < 1000 or unit == BYTE_UNITS[-1]:
            break
        count /= 1000
    return f"{count:.2g} {unit}" if count < 10 else f"{count:.0f} {unit}"
